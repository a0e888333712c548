"""``python -m neuro`` is the command ``neuro``."""

from neuro.cli import main

if __name__ == "__main__":
    main()
