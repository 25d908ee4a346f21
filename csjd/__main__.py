"""`python -m csjd`: tools for operators."""

import sys

from csjd.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
