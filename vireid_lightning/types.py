"""What the data hands to the methods: samples of a dataset and batches of tensors, and what their numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import NotRequired, TypedDict

from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from torch import Tensor  # a dataset only lists files, and takes no second to import torch

#: Numbers of the modalities, and their names in the order of these numbers.
VISIBLE = 0
INFRARED = 1
MODALITIES = ("visible", "infrared")

#: Number of an unknown identity or camera.
UNKNOWN = -1

#: Mean and standard deviation of ImageNet, by which every network's input is normalised.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Sample:
    """One image of a dataset.

    Attributes:
        path: Path relative to the dataset's root, with forward slashes on every system.
        identity: The dataset's own identity number; -1 where unknown.
        modality: 0 visible, 1 infrared.
        camera: The dataset's own camera number; -1 where unknown.
    """

    path: str
    identity: int
    modality: int
    camera: int


def check_modality(modality: object, name: str = "modality") -> None:
    """Refuse what is no number of a modality; ``name`` is what the message calls it.

    Raises:
        VIReIDError: Names it.
    """
    if isinstance(modality, (bool, float)) or modality not in (VISIBLE, INFRARED):
        raise VIReIDError(f"{name} is {modality!r}; give {VISIBLE} for visible or {INFRARED} for infrared.")


class Batch(TypedDict):
    """A batch on the device, as every method's steps receive it.

    A training batch of the identity sampler holds N = 2PK images: the first half visible, the second half infrared,
    the i-th image of each half showing the same identity.

    Attributes:
        image: (N, 3, H, W) float32, normalised with the mean and standard deviation of ImageNet.
        identity: (N,) int64. In training the class index, contiguous from 0; in evaluation the dataset's own
            identity number. -1 where unknown.
        modality: (N,) int64, 0 visible, 1 infrared.
        camera: (N,) int64, -1 where unknown.
        index: (N,) int64, position in the split's list of samples.
        erased: (N, H, W) bool, in training only: pixels that random erasing blanked (exactly 0 in ``image``).
        fake_infrared: (N, 3, H, W) float32, in training batches of a source with such copies only: ``image`` translated
            to infrared, with the same augmentation and normalisation.
    """

    image: Tensor
    identity: Tensor
    modality: Tensor
    camera: Tensor
    index: Tensor
    erased: NotRequired[Tensor]
    fake_infrared: NotRequired[Tensor]


def note_values(tensor: Tensor, values: list[int]) -> None:
    """Note with a tensor on a device what it holds, so that nothing waits to read it again.

    Tensors that are computed from it do not have the note, and it ends where the tensor is changed in place.

    Args:
        tensor: (B,) int64, such as modalities or labels.
        values: Its values.
    """
    tensor._noted = values, _count_changes(tensor)  # type: ignore[attr-defined]  # lives and dies with the tensor


def read_values(tensor: Tensor) -> list[int]:
    """Return the values of a tensor (B,) of integers: those noted with it, else read, which waits for the device."""
    values, version = getattr(tensor, "_noted", (None, None))
    result: list[int] = values if values is not None and version == _count_changes(tensor) else tensor.tolist()
    return result


def _count_changes(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; PyTorch does not count those of inference mode."""
    return 0 if tensor.is_inference() else tensor._version
