"""The contract of a dataset: it lists samples and builds protocols, nothing else."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import Sample

#: ``train``: what the model learns from; ``val``: what training monitors; ``test``: what the final table scores.
Split = Literal["train", "val", "test"]


class ReIDDataset(ABC):
    """A dataset on disk, in its authors' own folder layout.

    A subclass knows the layout and the index files. Constructing one is cheap and touches no image; a missing root or a
    broken index file is a :class:`VIReIDError` that names the file and says how to mend it.

    Args:
        root: The dataset's folder.

    Attributes:
        name: The name that results carry, such as ``SYSU-MM01``.
        distance: The distance that the field scores this dataset with.
        default_protocol: Name of the protocol that validation uses unless told otherwise.
        trial: The split's number where a dataset has several (RegDB), else None.
        labelled: Whether the training samples carry identities.
    """

    name: ClassVar[str]
    distance: ClassVar[Literal["cosine", "euclidean"]] = "cosine"
    default_protocol: ClassVar[str]
    labelled: ClassVar[bool] = True
    trial: int | None = None

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise VIReIDError(
                f"{self.name}: the folder {self.root} does not exist. Give the dataset's root, for example "
                f"--data.dataset.init_args.root /path/to/{self.name}."
            )

    @abstractmethod
    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split, from the index files alone where the layout has them."""

    @abstractmethod
    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, in an order that depends on the file names alone."""

    @abstractmethod
    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return the benchmark's protocols as positions in ``samples``.

        ``samples`` may come from :meth:`samples` or from a file of saved embeddings; images that a protocol needs and
        ``samples`` lacks are a :class:`VIReIDError`.
        """

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that change when the list of training or test images changes."""
        digest = hashlib.sha256(self.name.encode())
        for split in ("train", "test"):
            for sample in self.samples(split):
                digest.update(f"{split} {sample.path} {sample.identity} {sample.camera}\n".encode())
        return digest.hexdigest()[:12]
