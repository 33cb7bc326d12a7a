"""``python -I -S unpacker/__main__.py``: without the site packages, so this finds its own."""

import sys

if __name__ == "__main__":
    sys.path.append(__file__.rpartition("/boreas_agent/")[0])

    from boreas_agent.unpacker.program import main

    main(sys.argv[1])
