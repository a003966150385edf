"""What ``vireid check-dataset`` reports: counts, faults and notes, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from vireid_lightning.data.datasets.base import Split
from vireid_lightning.errors import VIReIDError


@dataclass(frozen=True)
class Count:
    """One line of the comparison.

    Attributes:
        split: The split counted.
        what: ``identities``, ``visible`` or ``infrared``.
        camera: The camera of these images; None for all of the split's cameras, -1 where unknown.
        expected: The published number, or the number that a stand-in's index files list; None where neither is known.
        found: The number in the folder.
    """

    split: Split
    what: str
    camera: int | None
    expected: int | None
    found: int


@dataclass(frozen=True)
class Fault:
    """Something wrong with a dataset's folder, and what to do about it."""

    problem: str
    remedy: str


@dataclass
class DatasetReport:
    """What :func:`check_dataset` found.

    Attributes:
        dataset: The dataset's name.
        root: Its folder.
        counts: Expected against found, by split, modality and camera.
        faults: What is wrong; empty where all is well.
        notes: What is worth knowing without being wrong.
        fingerprint: The dataset's fingerprint; None where its images could not all be listed.
        decoded: Number of images that were decoded; 0 unless the check is deep.
        bits: For each modality, the number of images by the bits of one of their values.
        complete: Whether every listed file is there.
    """

    dataset: str
    root: str
    counts: list[Count] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    decoded: int = 0
    bits: dict[str, dict[int, int]] = field(default_factory=dict)
    complete: bool = True

    def add_fault(self, problem: str, remedy: str) -> None:
        """Add a fault, unless the report has it already."""
        fault = Fault(problem, remedy)
        if fault not in self.faults:
            self.faults.append(fault)

    def add_error(self, error: VIReIDError) -> None:
        """Add an error of the dataset as a fault; its last sentence says what to do."""
        problem, _, remedy = str(error).rpartition(". ")
        self.add_fault(f"{problem}.", remedy)
