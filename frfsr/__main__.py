"""`python -m frfsr` is the command `frfsr`."""

import sys

from frfsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
