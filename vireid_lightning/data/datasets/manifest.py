"""A user's own cameras, described by one CSV file."""

from __future__ import annotations

import csv
import posixpath
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.folders import require_files
from vireid_lightning.data.datasets.index_files import join_first, read_text, to_number
from vireid_lightning.data.datasets.protocol_building import (
    DIRECTIONS,
    SampleColumns,
    build_direction,
    find_expected,
    index_by_path,
)
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Sample

COLUMNS = ("path", "identity", "modality", "camera", "split")

#: Accepted words for each modality.
MODALITY_WORDS = {
    "visible": VISIBLE,
    "rgb": VISIBLE,
    "infrared": INFRARED,
    "ir": INFRARED,
    "thermal": INFRARED,
}

SPLITS = ("train", "val", "query", "gallery")


class Manifest(ReIDDataset):
    """Your own images, listed in a CSV file with the header ``path,identity,modality,camera,split``.

    - ``path``: relative to the folder of the CSV file; each at most once.
    - ``identity``: a whole number from 0; empty in all training rows where identities are unknown.
    - ``modality``: ``visible`` (or ``rgb``), ``infrared`` (or ``ir``, ``thermal``).
    - ``camera``: a whole number from 0, or empty.
    - ``split``: ``train``, ``val``, ``query`` or ``gallery``. Without ``val`` rows, validation uses query and gallery.

    Args:
        path: The CSV file.
        direction: The direction that the query and gallery rows must allow and that validation scores; the other
            direction is reported too where the file has its images.

    Raises:
        VIReIDError: The file is missing, a row is wrong (it is named), or there are query or gallery rows but none
            that ``direction`` needs.

    Warns:
        UserWarning: Identities are both trained on and searched for.

    Example:
        >>> dataset = Manifest("/data/campus/manifest.csv")  # doctest: +SKIP
    """

    name: ClassVar[str] = "Manifest"

    def __init__(
        self,
        path: str | Path,
        *,
        direction: Literal["infrared-to-visible", "visible-to-infrared"] = "infrared-to-visible",
    ) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise VIReIDError(
                f"{self.name}: there is no file {self.path}. Give the path of a CSV file with the header "
                f"{','.join(COLUMNS)}."
            )
        if direction not in DIRECTIONS.values():
            raise VIReIDError(f"{self.name}: direction is {direction!r}; give one of {', '.join(DIRECTIONS.values())}.")
        super().__init__(self.path.parent)
        self.default_protocol = direction
        self._parts: dict[str, list[Sample]] = {split: [] for split in SPLITS}
        for split, sample in self._read_rows():
            self._parts[split].append(sample)
        for part in self._parts.values():
            part.sort(key=lambda sample: sample.path)
        self.labelled = self._check_train()
        if self._parts["query"] or self._parts["gallery"]:
            self._check_direction()

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split, from the CSV file alone; none where they are unknown."""
        return sorted({sample.identity for sample in self._of(split)} - {UNKNOWN})

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path; ``test`` is query and gallery together.

        Raises:
            VIReIDError: Files that the CSV file lists are missing.
        """
        samples = self._of(split)
        require_files(self.name, self.root, (sample.path for sample in samples), self.path.name)
        return samples

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return one or both directions: query and gallery as listed, or all against all of the ``val`` rows.

        Images of the query's own identity and camera are removed where both cameras are known; the CMC curve counts
        images.

        Raises:
            VIReIDError: Images of the CSV file are not among ``samples``, or none can be searched.
        """
        listed = self._of(split)
        positions = find_expected(self.name, samples, index_by_path(self.name, samples), listed)
        columns = SampleColumns.of(samples)
        divided = split != "train" and listed == self._of("test")
        queries = {sample.path for sample in (self._parts["query"] if divided else listed)}
        gallery = {sample.path for sample in (self._parts["gallery"] if divided else listed)}
        in_query = np.array([sample.path in queries for sample in listed], dtype=bool)
        in_gallery = np.array([sample.path in gallery for sample in listed], dtype=bool)
        modality = columns.modality[positions]
        protocols = []
        for query, name in DIRECTIONS.items():
            pair = (positions[in_query & (modality == query)], positions[in_gallery & (modality == 1 - query)])
            # The direction that is not the default is a second table only where some query can have a true match.
            shared = np.intersect1d(*(columns.identity[part] for part in pair))
            if name == self.default_protocol or len(shared):
                protocols.append(
                    build_direction(
                        self.name, columns, query, [pair], removal="same-camera", cmc="image", sampling="as listed"
                    )
                )
        return protocols

    def _of(self, split: Split) -> list[Sample]:
        """Return a split's rows; validation falls back on the test rows."""
        if split == "train" or (split == "val" and self._parts["val"]):
            return list(self._parts[split])
        return sorted(self._parts["query"] + self._parts["gallery"], key=lambda sample: sample.path)

    def _read_rows(self) -> list[tuple[str, Sample]]:
        """Read the CSV file: (split, sample) of each row."""
        reader = csv.DictReader(read_text(self.name, self.path).splitlines(), skipinitialspace=True)
        header = [column.strip() for column in reader.fieldnames or []]
        lacking = [column for column in COLUMNS if column not in header]
        if lacking:
            raise VIReIDError(
                f"{self.name}: the header of {self.path} lacks {', '.join(lacking)}. Its first line should be "
                f"{','.join(COLUMNS)}."
            )
        reader.fieldnames = header
        lines: dict[str, int] = {}
        rows = []
        for row in reader:
            where = f"line {reader.line_num} of {self.path}"
            split, sample = self._parse({column: (row[column] or "").strip() for column in COLUMNS}, where)
            if sample.path in lines:
                raise VIReIDError(
                    f"{self.name}: {where} lists {sample.path}, which line {lines[sample.path]} lists already. Keep "
                    "one of the two lines."
                )
            lines[sample.path] = reader.line_num
            rows.append((split, sample))
        if not rows:
            raise VIReIDError(f"{self.name}: {self.path} has a header but no rows. List one image a line.")
        return rows

    def _parse(self, row: dict[str, str], where: str) -> tuple[str, Sample]:
        """Turn one row's words into its split and sample."""
        if not row["path"]:
            raise VIReIDError(f"{self.name}: {where} has no path. Give one, relative to {self.root}.")
        modality, split = row["modality"].lower(), row["split"].lower()
        for what, word, choices in (("modality", modality, tuple(MODALITY_WORDS)), ("split", split, SPLITS)):
            if word not in choices:
                raise VIReIDError(
                    f"{self.name}: {where} has the unknown {what} {row[what]!r}; give one of {', '.join(choices)}."
                    + did_you_mean(word, choices)
                )
        if not row["identity"] and split != "train":
            raise VIReIDError(f"{self.name}: {where} has no identity, which only rows of the split train may lack.")
        numbers = {}
        for what in ("identity", "camera"):
            numbers[what] = to_number(self.name, row[what], f"a whole number ({what})", where) if row[what] else UNKNOWN
            if row[what] and numbers[what] < 0:
                raise VIReIDError(f"{self.name}: {where} has the {what} {row[what]}; give a number from 0, or none.")
        path = posixpath.normpath(row["path"].replace("\\", "/"))  # ./a.jpg and b/../a.jpg are a.jpg
        return split, Sample(path, numbers["identity"], MODALITY_WORDS[modality], numbers["camera"])

    def _check_train(self) -> bool:
        """Return whether the training rows carry identities; warn where those are searched for, too."""
        unknown = [sample.path for sample in self._parts["train"] if sample.identity == UNKNOWN]
        if unknown and len(unknown) < len(self._parts["train"]):
            raise VIReIDError(
                f"{self.name}: {len(unknown)} of the {len(self._parts['train'])} train rows of {self.path} have no "
                f"identity, the first is {unknown[0]}. Give all of them one, or none."
            )
        searched = set(self.identities("test")) | set(self.identities("val"))
        both = sorted(set(self.identities("train")) & searched)
        if both:
            warnings.warn(
                f"{self.name}: {len(both)} identities of {self.path} are both in train and in val, query or gallery, "
                f"which flatters the scores: {join_first(both)}. Give the people of each split their own numbers.",
                stacklevel=3,
            )
        return not unknown

    def _check_direction(self) -> None:
        """Check that the query and gallery rows allow the default direction."""
        query = {name: modality for modality, name in DIRECTIONS.items()}[self.default_protocol]
        other = DIRECTIONS[1 - query]
        for part, modality in (("query", query), ("gallery", 1 - query)):
            if not any(sample.modality == modality for sample in self._parts[part]):
                raise VIReIDError(
                    f"{self.name}: {self.path} has no {MODALITIES[modality]} {part} row, which searching "
                    f"{self.default_protocol} needs. Add some, or set direction='{other}' (--direction {other})."
                )
