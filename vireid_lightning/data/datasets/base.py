"""The contract of a dataset: it lists samples, builds protocols and says what its authors published, nothing else."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from vireid_lightning.data.datasets.roots import VARIABLE, explain_search, find_below_data
from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, VISIBLE, Sample

#: File in the root of a folder that ``vireid synthesize`` or the Synthetic dataset drew.
DRAWN = "synthetic.json"

#: ``train``: what the model learns from; ``val``: what training monitors; ``test``: what the final table scores.
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PublishedSplit:
    """The size of one split as the authors publish it, to compare a folder with.

    Attributes:
        identities: Number of identities; None where the authors give none.
        images: (modality, camera) -> number of images; camera None stands for all cameras together.
    """

    identities: int | None
    images: Mapping[tuple[int, int | None], int]


class ReIDDataset(ABC):
    """A dataset on disk, in its authors' own folder layout.

    A subclass knows the layout and the index files. Constructing one is cheap and touches no image; a missing root or a
    broken index file is a :class:`VIReIDError` that names the file and says how to mend it.

    Everything that the command line and the tools need to know of a dataset is an attribute or method of its class, so
    that a new dataset is one file.

    Args:
        root: The dataset's folder; a relative one that is not in the current folder is looked for in that which the
            environment variable ``VIREID_DATA`` names, by default ``data``.

    Attributes:
        name: The name that results carry, such as ``SYSU-MM01``.
        distance: The distance that the field scores this dataset with.
        default_protocol: Name of the protocol that validation uses unless told otherwise.
        trial: The split's number where a dataset has several (RegDB), else None.
        labelled: Whether the training samples carry identities.
        identity_names: The names of identities that the dataset names instead of numbering, by their numbers here.
        modalities: The modalities that each identity should be seen in.
        published: The size of each split as the authors publish it; empty where they publish none.
        check_options: Constructor arguments with which ``vireid check-dataset`` opens the dataset; those that put each
            image into one split, where the defaults do not.
        listed_in: The index file that :meth:`listed` reads, relative to the root, for messages.
        closed_to_tools: Why a tool that is given a class and a folder cannot open the dataset, and what to do instead;
            None where it can.
    """

    name: ClassVar[str]
    distance: ClassVar[Literal["cosine", "euclidean"]] = "cosine"
    default_protocol: str
    trial: int | None = None
    labelled: bool = True
    identity_names: Mapping[int, str] = {}
    modalities: ClassVar[tuple[int, ...]] = (VISIBLE, INFRARED)
    published: ClassVar[Mapping[Split, PublishedSplit]] = {}
    check_options: ClassVar[Mapping[str, str]] = {}
    listed_in: ClassVar[str] = "the index file"
    closed_to_tools: ClassVar[str | None] = None

    def __init__(self, root: str | Path) -> None:
        self.root = find_below_data(root)
        if not self.root.is_dir():
            raise VIReIDError(
                f"{self.name}: the folder {self.root} does not exist{explain_search(self.root)}. Give the dataset's "
                f"root, for example --data.dataset.init_args.root /path/to/{self.name}, or set the environment "
                f"variable {VARIABLE} to the folder that holds all datasets."
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

    def listed(self, split: Split) -> list[Sample] | None:
        """Return the images that an index file lists, where :meth:`samples` lists the folders instead.

        ``vireid check-dataset`` compares the two. None: no index file lists the images, or :meth:`samples` reads it.
        """
        return None

    @property
    def synthetic(self) -> bool:
        """Whether the images are drawn, as a file in the root says of a folder that ``vireid synthesize`` wrote."""
        return (self.root / DRAWN).is_file()

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that change when the list of training or test images changes."""
        digest = hashlib.sha256(self.name.encode())
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            for sample in self.samples(split):
                digest.update(f"{split} {sample.path} {sample.identity} {sample.camera}\n".encode())
        return digest.hexdigest()[:12]
