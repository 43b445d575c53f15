"""Entry point of `python -m las_tune`."""

from las_tune.cli import main

if __name__ == "__main__":
    main()
