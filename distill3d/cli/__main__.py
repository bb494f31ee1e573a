"""`python -m distill3d.cli`: the command line, where no script is installed."""

from distill3d.cli import main

if __name__ == "__main__":
    main()
