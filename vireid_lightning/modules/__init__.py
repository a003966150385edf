"""The networks' parts that methods are built from."""

from vireid_lightning.modules.backbone import Backbone, ModalityRows, PerModality

__all__ = ["Backbone", "ModalityRows", "PerModality"]
