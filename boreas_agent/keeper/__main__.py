"""``python -I -S keeper/__main__.py DIR NAME [CGROUP]``: without the site packages, so this finds its own."""

import sys

if __name__ == "__main__":
    sys.path.append(__file__.rpartition("/boreas_agent/")[0])

    from boreas_agent.keeper.daemon import main

    main(*sys.argv[1:])
