"""A user's own cameras, described by one CSV file."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from vireid_lightning.data.datasets.base import DRAWN, ReIDDataset, Split
from vireid_lightning.data.datasets.folders import require_files, require_inside
from vireid_lightning.data.datasets.index_files import is_outside, join_first, read_table, to_number
from vireid_lightning.data.datasets.protocol_building import (
    DIRECTIONS,
    SampleColumns,
    build_direction,
    find_expected,
    index_by_path,
)
from vireid_lightning.data.datasets.roots import explain_search, find_below_data
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.files import is_file
from vireid_lightning.printable import make_printable
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Sample

COLUMNS = ("path", "identity", "modality", "camera", "split")
_HEADER = ",".join(COLUMNS)

#: Accepted words for each modality.
MODALITY_WORDS = {
    "visible": VISIBLE,
    "rgb": VISIBLE,
    "infrared": INFRARED,
    "ir": INFRARED,
    "thermal": INFRARED,
}

SPLITS = ("train", "val", "query", "gallery")

#: An identity that is meant as a number: some programs write 7 as 7.0, and no name is a number.
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")

_ALLOW = "Copy the images into it, or set allow_outside: true if the file is trusted to name any file."


class Manifest(ReIDDataset):
    """Your own images, listed in a CSV file with the header ``path,identity,modality,camera,split``.

    Commas, semicolons or tabs may separate the columns.

    - ``path``: relative to the folder of the CSV file, and inside it; each at most once.
    - ``identity``: a whole number from 0, or a name; empty in all training rows where identities are unknown. Names
      get the numbers after the largest one, in the order of the alphabet.
    - ``modality``: ``visible`` (or ``rgb``), ``infrared`` (or ``ir``, ``thermal``).
    - ``camera``: a whole number from 0, or empty.
    - ``split``: ``train``, ``val``, ``query`` or ``gallery``. Without ``val`` rows, validation uses query and gallery.

    Args:
        path: The CSV file.
        direction: The direction that the query and gallery rows must allow and that validation scores; the other
            direction is reported too where the file has its images.
        root: The CSV file under the name that other datasets' folders have; where both are given, this one counts.
        allow_outside: Whether paths may be absolute, or lead out of the CSV file's folder by dots or links.
        encoding: Encoding of the CSV file, such as gbk; null: UTF-8, or UTF-16 with a byte order mark.

    Attributes:
        identity_names: The names of identities that are no numbers, by the numbers that they got.

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
        path: str | Path | None = None,
        *,
        direction: Literal["infrared-to-visible", "visible-to-infrared"] = "infrared-to-visible",
        root: str | Path | None = None,
        allow_outside: bool = False,
        encoding: str | None = None,
    ) -> None:
        given = path if root is None else root
        if given is None:
            raise VIReIDError(f"{self.name}: no path is given. Set path to a CSV file with the header {_HEADER}.")
        self.path = find_below_data(given)
        self.allow_outside, self.encoding = allow_outside, encoding
        if not is_file(self.path):
            raise VIReIDError(
                f"{self.name}: there is no file {self.path}{explain_search(self.path)}. Give the path of a CSV file "
                f"with the header {_HEADER}."
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
            VIReIDError: Files that the CSV file lists are missing, or lie outside of its folder.
        """
        samples = self._of(split)
        if not self.allow_outside:
            require_inside(self.name, self.root, (sample.path for sample in samples), self.path.name, _ALLOW)
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

    @property
    def synthetic(self) -> bool:
        """Whether images are drawn: a folder that holds some of them, or one above it, says so."""
        one_of_each = {posixpath.dirname(sample.path): sample.path for part in self._parts.values() for sample in part}
        holding = {Path(os.path.realpath(self.root / path)).parent for path in one_of_each.values()}
        above = {self.root, *holding, *(parent for folder in holding for parent in folder.parents)}
        return any((folder / DRAWN).is_file() for folder in above)

    def _of(self, split: Split) -> list[Sample]:
        """Return a split's rows; validation falls back on the test rows."""
        if split == "train" or (split == "val" and self._parts["val"]):
            return list(self._parts[split])
        return sorted(self._parts["query"] + self._parts["gallery"], key=lambda sample: sample.path)

    def _read_rows(self) -> list[tuple[str, Sample]]:
        """Read the CSV file: (split, sample) of each row."""
        rows_read = read_table(self.name, self.path, COLUMNS, self.encoding)
        table = [(f"line {line} of {self.path}", line, row) for line, row in rows_read]
        if not table:
            raise VIReIDError(f"{self.name}: {self.path} has a header but no rows. List one image a line.")
        numbers = self._number_identities({row["identity"]: where for where, _, row in reversed(table)})
        lines: dict[str, int] = {}
        rows = []
        for where, line, row in table:
            split, sample = self._parse(row, numbers, where)
            if sample.path in lines:
                raise VIReIDError(
                    f"{self.name}: {where} lists {sample.path}, which line {lines[sample.path]} lists already. Keep "
                    "one of the two lines."
                )
            lines[sample.path] = line
            rows.append((split, sample))
        return rows

    def _number_identities(self, words: Mapping[str, str]) -> dict[str, int]:
        """Return the number of each word of the column ``identity``, given where it first stands; keep the names."""
        numbers = {"": UNKNOWN}
        names = set()
        for word, where in words.items():
            if not word:
                continue
            if _NUMBER.fullmatch(word) is None:
                names.add(unicodedata.normalize("NFC", word))  # one name, however its accents are written
                continue
            whole, _, fraction = word.partition(".")
            if fraction.strip("0"):
                raise VIReIDError(
                    f"{self.name}: {where} has {word!r} where a whole number or a name (identity) belongs."
                )
            numbers[word] = _to_count(whole, "identity", where)
        first = max(numbers.values()) + 1
        self.identity_names = dict(enumerate(sorted(names), start=first))
        by_name = {name: number for number, name in self.identity_names.items()}
        return {
            word: numbers[word] if word in numbers else by_name[unicodedata.normalize("NFC", word)] for word in words
        }

    def _parse(self, row: dict[str, str], identities: Mapping[str, int], where: str) -> tuple[str, Sample]:
        """Turn one row's words into its split and sample."""
        if not row["path"]:
            raise VIReIDError(f"{self.name}: {where} has no path. Give one, relative to {self.root}.")
        path = posixpath.normpath(row["path"].replace("\\", "/"))  # ./a.jpg and b/../a.jpg are a.jpg
        if "\0" in path:
            raise VIReIDError(f"{self.name}: {where} has the path {path!r}, with a NUL byte. Correct it.")
        if is_outside(path) and not self.allow_outside:
            raise VIReIDError(
                f"{self.name}: {where} has the path {path}, which leads out of the dataset's folder {self.root}. "
                + _ALLOW
            )
        modality, split = row["modality"].lower(), row["split"].lower()
        for what, word, choices in (("modality", modality, tuple(MODALITY_WORDS)), ("split", split, SPLITS)):
            if word not in choices:
                raise VIReIDError(
                    f"{self.name}: {where} has the unknown {what} {row[what]!r}; give one of {', '.join(choices)}."
                    + did_you_mean(word, choices)
                )
        if not row["identity"] and split != "train":
            raise VIReIDError(f"{self.name}: {where} has no identity, which only rows of the split train may lack.")
        camera = _to_count(row["camera"], "camera", where) if row["camera"] else UNKNOWN
        return split, Sample(path, identities[row["identity"]], MODALITY_WORDS[modality], camera)

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
            people = join_first(self.identity_names.get(identity, identity) for identity in both)
            warnings.warn(
                make_printable(
                    f"{self.name}: {len(both)} identities of {self.path} are both in train and in val, query or "
                    f"gallery, which flatters the scores: {people}. Give the people of each split their own numbers."
                ),
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


def _to_count(word: str, what: str, where: str) -> int:
    """Return a whole number from 0, as identities and cameras have them."""
    number = to_number(Manifest.name, word, f"a whole number ({what})", where)
    if number < 0:
        raise VIReIDError(f"{Manifest.name}: {where} has the {what} {word}; give a number from 0, or none.")
    return number
