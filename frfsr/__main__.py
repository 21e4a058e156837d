"""`python -m frfsr` is the command `frfsr`."""

import sys

from frfsr.cli import main

sys.exit(main())
