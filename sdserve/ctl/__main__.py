"""`python -m sdserve.ctl` is the command `sdservectl`."""

import sys

from sdserve.ctl import main

if __name__ == "__main__":
    sys.exit(main())
