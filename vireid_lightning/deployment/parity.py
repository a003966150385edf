"""Whether a file that was written gives PyTorch's embeddings: on random, drawn and the user's own images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.images.resizing import resize_image
from vireid_lightning.data.synthetic.renderer import PedestrianRenderer
from vireid_lightning.deployment.embedder import Embedder
from vireid_lightning.deployment.image_lists import list_images
from vireid_lightning.errors import VIReIDError

#: Images (B, height, width, 3) uint8 and their modalities (B,) int64.
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]

#: Largest difference of an embedding from PyTorch's, as a share of its length. A float32 has 24 bits, so that one
#: rounding is 6e-8 and sums of thousands of products in another order, in some fifty layers, stay below 1e-4. A float16
#: has 11 bits: one rounding is 5e-4, and fifty layers, whose errors partly cancel, stay below 2e-2.
TOLERANCE = {False: 1e-4, True: 2e-2}

_RANDOM_BATCHES = (1, 2, 5)  # one image alone, one of each modality, and more than the batch that was traced
_DRAWN_PERSONS = 4
_AT_ONCE = 16


def check_images(
    embedder: Embedder, modality: int | None, images: Sequence[str | Path]
) -> list[tuple[str, Iterator[Batch]]]:
    """Return batches of random images, of drawn pedestrians, and of a user's images, by what they are called.

    Args:
        embedder: Prepares the images.
        modality: The one modality that is compared; None: every image is taken for one of each.
        images: The user's images; none are needed.

    Raises:
        VIReIDError: The user's images cannot be listed.
    """
    kinds = (0, 1) if modality is None else (modality,)
    found = [("random", _make_random(embedder, kinds)), ("drawn", _draw(embedder, kinds))]
    if images:
        root, samples = list_images(images, kinds[0])
        given = (embedder.prepare(root / sample.path, sample.modality) for sample in samples)
        found.append(("given", _collect((image, kind) for image in given for kind in kinds)))
    return found


def compare(
    embedder: Embedder,
    serve: Callable[[Batch], NDArray[np.float32]],
    batches: Sequence[tuple[str, Iterator[Batch]]],
    *,
    half: bool,
    origin: str,
) -> Mapping[str, float]:
    """Return the largest difference on each kind of images, as a share of the embedding's length.

    Args:
        embedder: Embeds by PyTorch, in float32.
        serve: Embeds by what is compared.
        batches: Images by what they are called.
        half: Whether what is compared computes in float16.
        origin: What is compared, for messages.

    Raises:
        VIReIDError: A difference is larger than rounding explains.
    """
    differences = {}
    for name, parts in batches:
        largest = 0.0
        for images, modality in parts:
            wanted = embedder.embed_pixels(images, modality.tolist()).cpu().numpy()
            found = serve((images, modality))
            if found.shape != wanted.shape:
                raise VIReIDError(
                    f"{origin} gives embeddings of shape {found.shape}, but PyTorch {wanted.shape}; {_LOST}"
                )
            share = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
            largest = float(np.maximum(largest, share.max()))  # stays NaN
        if not largest <= TOLERANCE[half]:
            raise VIReIDError(
                f"{origin} differs from PyTorch by {largest:.2g} of an embedding's length on the {name} images, where "
                f"rounding explains {TOLERANCE[half]:g}; {_LOST}"
            )
        differences[name] = largest
    return differences


_LOST = "it was not kept: another format, or float32, may do."


def _make_random(embedder: Embedder, kinds: Sequence[int]) -> Iterator[Batch]:
    generator = np.random.default_rng(0)
    for count in _RANDOM_BATCHES:
        images = generator.integers(0, 256, (count, *embedder.image_size, 3), dtype=np.uint8)
        yield images, np.resize(np.array(kinds[::-1], dtype=np.int64), count)


def _draw(embedder: Embedder, kinds: Sequence[int]) -> Iterator[Batch]:
    renderer = PedestrianRenderer()
    drawn = ((renderer.draw(person, 1 + kind, kind, 0), kind) for person in range(_DRAWN_PERSONS) for kind in kinds)
    return _collect((resize_image(image, embedder.image_size, embedder.interpolation), kind) for image, kind in drawn)


def _collect(pairs: Iterator[tuple[NDArray[np.uint8], int]]) -> Iterator[Batch]:
    """Yield batches of images with their modalities."""
    while part := list(itertools.islice(pairs, _AT_ONCE)):
        yield np.stack([image for image, _ in part]), np.array([kind for _, kind in part], dtype=np.int64)
