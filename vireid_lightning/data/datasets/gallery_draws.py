"""Galleries that are drawn at random from seeds, as Ye et al. (TPAMI 2022) and most later code draw them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.types import Sample

#: Galleries that a benchmark with random galleries draws; its scores are the mean over them.
GALLERY_DRAWS = 10


def draw_one_per_folder(
    samples: Sequence[Sample], positions: Iterable[int], cameras: Sequence[int], seed: int
) -> NDArray[np.int64]:
    """Draw one image of each identity and camera: a ``seeded`` gallery, as most published code draws it.

    One ``random.Random(seed)`` runs through the identities in the order of their zero-padded names (that is, by
    number), and within an identity through the cameras in the order given; it makes one ``choice`` from the sorted
    files of that identity and camera. An identity without an image in a camera draws nothing there.

    Args:
        samples: All samples.
        positions: Positions of the images that may be drawn.
        cameras: The gallery's cameras, in the order in which the benchmark's code lists them.
        seed: The number of the draw, counted from 0.

    Returns:
        Positions in ``samples``, in the order of drawing.
    """
    folders: dict[tuple[int, int], list[int]] = {}
    for position in positions:
        folders.setdefault((samples[position].identity, samples[position].camera), []).append(position)
    generator = random.Random(seed)
    drawn = []
    for identity in sorted({identity for identity, _ in folders}):
        for camera in cameras:
            files = sorted(folders.get((identity, camera), []), key=lambda position: samples[position].path)
            if files:
                drawn.append(generator.choice(files))
    return np.array(drawn, dtype=np.int64)
