"""What the ``vireid`` command's tools do, as functions."""

from vireid_lightning.methods.released.importing import import_checkpoint

__all__ = ["import_checkpoint"]
