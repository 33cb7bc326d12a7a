"""``boreas-agent``, on a machine of which somebody sets the wall clock: by as many seconds as the file says that ``SHIFT_FILE`` names."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from boreas_agent.cli.main import main
from boreas_agent.clock import SystemClock


def _shifted(_: SystemClock) -> datetime:
    file = Path(os.environ["SHIFT_FILE"])
    return datetime.now(UTC) + timedelta(seconds=float(file.read_text()))


SystemClock.now = _shifted  # type: ignore[method-assign]
raise SystemExit(main())
