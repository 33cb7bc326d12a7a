"""``python -m boreas_agent``: the same as the command ``boreas-agent``."""

from __future__ import annotations

import sys

from boreas_agent.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
