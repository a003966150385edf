"""``python -m vireid_lightning`` is the ``lightning`` command."""

from vireid_lightning.cli import main

if __name__ == "__main__":
    main()
