"""``python -m vireid_lightning`` is the ``lightning`` command."""

from vireid_lightning.cli import lightning

if __name__ == "__main__":
    lightning()
