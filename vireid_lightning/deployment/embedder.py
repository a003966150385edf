"""Embeds images with the network of a checkpoint, prepared as that network's training images were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vireid_lightning import data
from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.data.images.reading import BadImageError, DeepImageError, Limits, read_image
from vireid_lightning.data.images.resizing import Interpolation, resize_image
from vireid_lightning.data.loading import normalize
from vireid_lightning.deployment.image_lists import list_images
from vireid_lightning.environment import list_versions
from vireid_lightning.errors import VIReIDError
from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.kinds import check_number
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, fingerprint_weights, read_checkpoint
from vireid_lightning.methods.loading import load_method
from vireid_lightning.metrics.distances import check_distance
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.precision import exact_float32
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD, MODALITIES, Sample, check_modality

_THREADS = 4  # that read images; reading is decoding, which leaves Python's lock


class Embedder:
    """Embeds images by a method, in eval mode.

    Args:
        method: The method.
        preprocessing: How its images were prepared: ``image_size``, ``interpolation`` and, where images of more than 8
            bits are known, ``intensity_range``, as checkpoints hold them.
        distance: Distance by which its embeddings are compared, ``cosine`` or ``euclidean``.
        checkpoint: Where the weights come from, for messages and for what saved embeddings say.
        batch_size: Number of images that pass through the network at once.

    Attributes:
        weights: 16 hexadecimal digits that change with any weight.
        skipped: What was wrong with each image of the last call that could not be read, by its path.

    Example:
        >>> embedder = Embedder.from_checkpoint("last.ckpt")  # doctest: +SKIP
        >>> gallery = Gallery(embedder.embed(["camera1/"], "visible"))  # doctest: +SKIP
        >>> print(gallery.search(embedder.embed(["night.png"], "infrared"), k=10))  # doctest: +SKIP
    """

    def __init__(
        self,
        method: ReIDModule,
        preprocessing: Mapping[str, Any],
        *,
        distance: str = "cosine",
        checkpoint: str | Path | None = None,
        batch_size: int = 64,
    ) -> None:
        check_distance(distance)
        check_number("batch_size", batch_size, 1, whole=True)
        self.method = method.eval()
        self.preprocessing = _check_preprocessing(preprocessing, checkpoint or "The preprocessing")
        self.distance, self.checkpoint, self.batch_size = distance, checkpoint, batch_size
        height, width = self.preprocessing["image_size"]
        self.image_size: tuple[int, int] = (height, width)
        self.interpolation: Interpolation = self.preprocessing["interpolation"]
        given = self.preprocessing.get("intensity_range", {})
        self.limits: list[Limits | None] = [
            (given[name][0], given[name][1]) if name in given else None for name in MODALITIES
        ]
        self.weights = fingerprint_weights(method)
        self.skipped: dict[str, str] = {}

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        method: type[ReIDModule] | None = None,
        *,
        distance: str | None = None,
        device: str | None = None,
        batch_size: int = 64,
    ) -> Embedder:
        """Rebuild a checkpoint's method and read how its images were prepared.

        Args:
            path: The checkpoint.
            method: Class of the method; needed for one that is not of this package.
            distance: Distance by which its embeddings are compared; None: that of the dataset it was trained on,
                cosine where that is not known.
            device: Where it computes, such as ``cpu`` or ``cuda``; None: on a GPU where there is one.
            batch_size: Number of images that pass through the network at once.

        Raises:
            VIReIDError: The file is no checkpoint of this package, says nothing of its images, or there is no such
                device.
        """
        check_number("batch_size", batch_size, 1, whole=True)
        module = load_method(path) if method is None else load_method(path, method)
        block = read_checkpoint(path)[BLOCK]
        chosen = distance or find_distance(block)
        embedder = cls(
            module, block.get("preprocessing") or {}, distance=chosen, checkpoint=path, batch_size=batch_size
        )
        embedder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return embedder

    def to(self, device: str) -> None:
        """Compute on another device from now on."""
        try:
            self.method.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise VIReIDError(f"The device '{device}' cannot be used: {reason}; give cpu.") from error

    def embed(
        self, images: Sequence[str | Path] | str | Path, modality: str | int | None = None, *, progress: bool = False
    ) -> Embeddings:
        """Return the embeddings of image files in the order in which they are given.

        Args:
            images: Files, folders, patterns or CSV files, see
                :func:`~vireid_lightning.deployment.image_lists.list_images`.
            modality: ``visible`` or ``infrared``, for images of which no CSV file says it.
            progress: Whether to show a progress bar.

        Raises:
            VIReIDError: No image can be read, or one has more than 8 bits and the checkpoint does not know how dark
                black is. Single files that cannot be read are left out, and listed in ``skipped``.
        """
        root, samples = list_images([images] if isinstance(images, (str, Path)) else images, modality)
        self.skipped = {}
        kept, rows = [], []
        with tqdm(total=len(samples), desc="Embedding", unit="image", disable=not progress) as bar:
            for part, pixels in self._read(root, samples):
                if part:
                    rows.append(self.embed_pixels(np.stack(pixels), [sample.modality for sample in part]).cpu())
                    kept += part
                bar.n = len(kept) + len(self.skipped)
                bar.refresh()
        if not kept:
            first = next(iter(self.skipped.values()))
            raise VIReIDError(f"None of the {len(samples)} images can be read. {first}")
        return Embeddings(
            torch.cat(rows),
            torch.tensor([sample.identity for sample in kept]),
            torch.tensor([sample.camera for sample in kept]),
            torch.tensor([sample.modality for sample in kept]),
            [sample.path for sample in kept],
            about={**self.describe(), "root": str(root)},
            origin="the embedded images",
        )

    def embed_pixels(self, pixels: NDArray[np.uint8], modality: Sequence[int]) -> Tensor:
        """Return the embeddings (N, D) float32 of images that have the network's size.

        Args:
            pixels: (N, height, width, 3) uint8, RGB, as :meth:`prepare` makes them.
            modality: Modality of each image, 0 visible, 1 infrared.
        """
        for number in set(modality):
            check_modality(number)
        device = next(self.method.parameters()).device
        if device.type == "cpu":
            keep_freed_memory()
        batch = normalize(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(device))
        with exact_float32(device):
            return self.method.embed(batch, torch.tensor(modality, device=device)).float()

    def prepare(self, path: str | Path, modality: int) -> NDArray[np.uint8]:
        """Return an image file as the network takes it: (height, width, 3) uint8, RGB.

        Raises:
            BadImageError: The file cannot be read.
            VIReIDError: It has more than 8 bits, and the checkpoint has no intensity range for its modality.
        """
        check_modality(modality)
        try:
            image = read_image(Path(path), self.limits[modality], modality)
        except DeepImageError:
            raise VIReIDError(
                f"The image file {path} has more than 8 bits, and {self.checkpoint or 'the network'} was trained "
                f"without an intensity range for {MODALITIES[modality]} images; convert it to 8 bits as the training "
                "images were."
            ) from None
        return resize_image(image, self.image_size, self.interpolation)

    def describe(self) -> dict[str, Any]:
        """Return what saved embeddings say of the network, its images and the distance."""
        return {
            "stage": "embed",
            "method": type(self.method).__name__,
            "backbone": getattr(getattr(self.method, "backbone", None), "name", None),
            "image_size": list(self.image_size),
            "interpolation": self.interpolation,
            "preprocessing": dict(self.preprocessing),
            "checkpoint": None if self.checkpoint is None else str(Path(self.checkpoint).expanduser().resolve()),
            "weights": self.weights,
            "distance": self.distance,
            "versions": list_versions(),
        }

    def _read(self, root: Path, samples: Sequence[Sample]) -> Iterator[tuple[list[Sample], list[NDArray[np.uint8]]]]:
        """Yield batches of the images that can be read; while one passes through the network, the next is read."""
        with ThreadPoolExecutor(_THREADS) as pool:
            batches = [samples[begin : begin + self.batch_size] for begin in range(0, len(samples), self.batch_size)]
            waiting = [pool.submit(self._try, root, sample) for sample in batches[0]]
            for number, batch in enumerate(batches):
                ahead = batches[number + 1] if number + 1 < len(batches) else ()
                following = [pool.submit(self._try, root, sample) for sample in ahead]
                try:
                    found = [future.result() for future in waiting]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                waiting = following
                pairs = [(sample, image) for sample, image in zip(batch, found) if not isinstance(image, str)]
                self.skipped |= {
                    str(root / sample.path): image for sample, image in zip(batch, found) if isinstance(image, str)
                }
                yield [sample for sample, _ in pairs], [image for _, image in pairs]

    def _try(self, root: Path, sample: Sample) -> NDArray[np.uint8] | str:
        """Return an image, or what is wrong with its file."""
        try:
            return self.prepare(root / sample.path, sample.modality)
        except BadImageError as error:
            return str(error).removesuffix(" Restore it from the dataset's archive.")


def find_distance(block: Mapping[str, Any]) -> str:
    """Return the distance of the dataset that a checkpoint was trained on; cosine where that is not known."""
    trained = block.get("dataset") or {}
    known = {
        cls.name: cls.distance
        for cls in vars(data).values()
        if isinstance(cls, type) and issubclass(cls, ReIDDataset) and hasattr(cls, "name")
    }
    return str(trained.get("distance") or known.get(str(trained.get("name")), "cosine"))


def _check_preprocessing(preprocessing: Mapping[str, Any], origin: object) -> dict[str, Any]:
    """Return how images are prepared, if it can be done here.

    Raises:
        VIReIDError: Nothing is said, or it needs what this version does not have.
    """
    found = dict(preprocessing)
    if "image_size" not in found:
        raise VIReIDError(
            f"{origin} does not say how its images were prepared; train with a CrossModalityDataModule, or import the "
            "weights again with `vireid import-checkpoint`."
        )
    if "resizer" not in found:  # of a version that went by OpenCV's names
        found["interpolation"] = f"opencv-{found.get('interpolation', 'bilinear')}"
        found["resizer"] = "opencv"
    if (interpolation := found.get("interpolation")) not in get_args(Interpolation):
        raise VIReIDError(
            f"{origin} was trained on images resized by '{interpolation}', which this version does not have; "
            "use the version that wrote it."
        )
    wanted = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    other = [name for name, values in wanted.items() if list(found.get(name, values)) != values]
    if other:
        raise VIReIDError(
            f"{origin} was trained on images with the {other[0]} {found[other[0]]}, which this version does not "
            "normalise by; use the version that wrote it."
        )
    return found
