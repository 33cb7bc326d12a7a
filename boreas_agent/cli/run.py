"""``boreas-agent run``: settings, logs, then the agent itself."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from functools import partial

from boreas_agent.configuration import load_settings
from boreas_agent.errors import StartupError
from boreas_agent.logs import logging_to

log = logging.getLogger(__name__)


def run_agent(flags: Mapping[str, object]) -> int:
    """Run until told to stop; returns the exit status. Raises StartupError."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it asks for what has been read just now; the agent listens to it later
    environment = dict(os.environ)
    read = partial(load_settings, flags, environment)
    settings = read()
    from boreas_agent.agent import run  # after the settings: a mistake in them is answered at once

    with logging_to(settings.log) as relog:
        try:
            return run(settings, read, relog)
        except StartupError:
            raise
        except Exception:
            log.exception("the agent ended because of an internal error")
            raise
