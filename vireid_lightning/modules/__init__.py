"""The networks' parts that methods are built from."""

from vireid_lightning.modules.backbone import Backbone, PerModality
from vireid_lightning.modules.encoder import Encoder, Encoding, encode
from vireid_lightning.modules.gray_view import GrayView, draw_channels
from vireid_lightning.modules.modality_alleviation import ModalityAlleviation
from vireid_lightning.modules.modality_classifiers import ModalityClassifiers, mean_rate
from vireid_lightning.modules.modality_rows import ModalityRows
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.non_local import NonLocal, insert_non_local
from vireid_lightning.modules.parts import (
    PartAwareParsing,
    PixelClassifiers,
    predicted_mask,
    rectify_parts,
    require_part_rows,
    shrink_mask,
)
from vireid_lightning.modules.pattern_alignment import PatternAlignment
from vireid_lightning.modules.pooling import GeM, GlobalAveragePooling
from vireid_lightning.modules.stripes import (
    PartHead,
    PermutationHead,
    draw_orders,
    invert_order,
    pool_stripes,
    shuffle_stripes,
)
from vireid_lightning.modules.trunk import BackboneSettings

__all__ = [
    "BNNeck",
    "Backbone",
    "BackboneSettings",
    "Encoder",
    "Encoding",
    "GeM",
    "GlobalAveragePooling",
    "GrayView",
    "ModalityAlleviation",
    "ModalityClassifiers",
    "ModalityRows",
    "NonLocal",
    "PartAwareParsing",
    "PartHead",
    "PatternAlignment",
    "PerModality",
    "PermutationHead",
    "PixelClassifiers",
    "draw_channels",
    "draw_orders",
    "encode",
    "insert_non_local",
    "invert_order",
    "mean_rate",
    "pool_stripes",
    "predicted_mask",
    "rectify_parts",
    "require_part_rows",
    "shrink_mask",
    "shuffle_stripes",
]
