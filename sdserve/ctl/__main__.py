"""python -m sdserve.ctl"""

import sys

from sdserve.ctl import main

if __name__ == "__main__":
    sys.exit(main())
