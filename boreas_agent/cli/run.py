"""``boreas-agent run``: settings, logs, then the agent itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from boreas_agent.errors import StartupError
from boreas_agent.logs import logging_to
from boreas_agent.settings import load_settings

log = logging.getLogger(__name__)


def run_agent(flags: Mapping[str, object]) -> int:
    """Run until told to stop; returns the exit status. Raises StartupError."""
    settings = load_settings(flags, os.environ)
    from boreas_agent.agent import run  # after the settings: a mistake in them is answered at once

    with logging_to(settings.log):
        try:
            return run(settings)
        except StartupError:
            raise
        except Exception:
            log.exception("the agent ended because of an internal error")
            raise
