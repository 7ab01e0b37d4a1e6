"""`python -m taskdist.agent`: an agent without the command line of the whole project."""

import sys

from taskdist.agent.runner import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
