"""`python -m sdserve` is the command `sdserve`."""

from sdserve.cli import main

if __name__ == "__main__":
    main()
