"""``python -I -m boreas_agent.fetcher``."""

import sys

from boreas_agent.fetcher.program import main

if __name__ == "__main__":
    main(sys.argv[1])
