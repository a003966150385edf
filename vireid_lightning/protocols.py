"""What an evaluation protocol is: query sets, gallery sets and the images that a query must skip.

The dataset classes build protocols from their index files; this module knows no folder layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds

#: Which gallery images a query skips. ``none``: all count. ``sysu``: queries of camera 3 skip the gallery of camera 2,
#: which stands in the same place. ``same-camera``: images of the query's own identity *and* camera are skipped where
#: both cameras are known.
Removal = Literal["none", "sysu", "same-camera"]

#: The pair of cameras of rule ``sysu``.
SYSU_QUERY_CAMERA, SYSU_GALLERY_CAMERA = 3, 2

#: What a rank of the CMC curve counts: ``identity`` keeps the best-ranked image of each gallery identity only,
#: ``image`` counts every gallery image. mAP and mINP always count images.
CMC = Literal["identity", "image"]


def is_removed(rule: Removal, same_identity: Any, query_camera: Any, gallery_camera: Any) -> Any:
    """Return which gallery images a query skips: the removal rules of all protocols, and the one place that has them.

    Args:
        rule: The protocol's rule.
        same_identity: Whether query and gallery image show the same person: bool, or a bool array or tensor.
        query_camera: Camera of the query, -1 unknown: a number, or an array or tensor that broadcasts with the others.
        gallery_camera: Camera of the gallery image, likewise.

    Returns:
        True where the image is skipped, of the broadcast shape.

    Example:
        >>> is_removed("sysu", False, 3, np.array([1, 2, 4]))
        array([False,  True, False])
    """
    if rule == "sysu":
        removed = (query_camera == SYSU_QUERY_CAMERA) & (gallery_camera == SYSU_GALLERY_CAMERA)
    elif rule == "same-camera":
        removed = same_identity & (query_camera == gallery_camera) & (query_camera >= 0)
    else:
        removed = (query_camera == gallery_camera) & False
    return removed


@dataclass(frozen=True)
class Trial:
    """One draw of a protocol.

    Attributes:
        query: (Q,) int64, positions in the list of samples that the protocol was built from.
        gallery: (G,) int64, positions in the same list; ties rank in this order.
    """

    query: NDArray[np.int64]
    gallery: NDArray[np.int64]


@dataclass(frozen=True)
class Protocol:
    """One row of a benchmark's table: trials whose scores are averaged.

    Attributes:
        name: The row's name, unique within a dataset, such as ``all/single/official`` or ``visible-to-infrared``.
        trials: One or more trials.
        removal: Which gallery images a query skips.
        cmc: What the CMC curve counts.
        labels: What the row stands for, written to ``results.json``: mode, shot, sampling, direction, and the like.

    Raises:
        VIReIDError: There is no such rule, or no such count.
    """

    name: str
    trials: tuple[Trial, ...]
    removal: Removal = "none"
    cmc: CMC = "image"
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kinds({"removal": self.removal, "cmc": self.cmc}, Protocol)

    def samples_used(self) -> NDArray[np.int64]:
        """Return the sorted positions of all samples that any trial needs."""
        used: NDArray[np.int64] = np.concatenate([part for t in self.trials for part in (t.query, t.gallery)])
        return np.unique(used)

    def check(self, queries: int, gallery: int) -> None:
        """Check that the trials point into what there is, and that no gallery lists an image twice.

        Args:
            queries: Number of images that ``trial.query`` points into.
            gallery: Number of images that ``trial.gallery`` points into.

        Raises:
            VIReIDError: A trial is empty, points beyond the images, or lists a gallery image more than once.
        """
        for trial in self.trials:
            for side, positions, available in (("query", trial.query, queries), ("gallery", trial.gallery, gallery)):
                if not len(positions):
                    raise VIReIDError(f"{self.name}: a trial has no {side} images.")
                if positions.min() < 0 or positions.max() >= available:
                    raise VIReIDError(
                        f"{self.name}: the protocol needs {side} image {positions.max()} (counted from 0), but there "
                        f"are {available} embeddings; embed all images that the protocol lists."
                    )
            if len(np.unique(trial.gallery)) < len(trial.gallery):
                raise VIReIDError(f"{self.name}: a gallery lists an image more than once; list each once.")

    def gallery_hash(self, names: Sequence[str]) -> str:
        """Return 12 hexadecimal digits that change when any trial's gallery does, whatever its order.

        Args:
            names: Names of all images that ``trial.gallery`` points into, such as their paths.
        """
        digest = hashlib.sha256()
        for trial in self.trials:
            digest.update("\n".join(sorted(names[position] for position in trial.gallery.tolist())).encode())
            digest.update(b"\n\n")
        return digest.hexdigest()[:12]
