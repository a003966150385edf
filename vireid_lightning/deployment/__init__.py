"""After training: embed images, search among them, and export networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily

if TYPE_CHECKING:
    from vireid_lightning.deployment.embedder import Embedder
    from vireid_lightning.deployment.exporting import export_checkpoint
    from vireid_lightning.deployment.gallery import Gallery
    from vireid_lightning.deployment.indexing import GalleryIndex
    from vireid_lightning.deployment.rank_lists import RankLists
    from vireid_lightning.deployment.threshold import choose_thresholds

__all__ = ["Embedder", "Gallery", "GalleryIndex", "RankLists", "choose_thresholds", "export_checkpoint"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Embedder": "embedder",
            "Gallery": "gallery",
            "GalleryIndex": "indexing",
            "RankLists": "rank_lists",
            "choose_thresholds": "threshold",
            "export_checkpoint": "exporting",
        },
    )
