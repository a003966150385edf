"""``python -m vireid_lightning`` is the ``lightning`` command."""

from vireid_lightning.cli.lightning import main

if __name__ == "__main__":
    main()
