"""Looking at a dataset's image files: which cannot be read, how deep they are, which are constant or the same."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.index_files import join_first
from vireid_lightning.data.datasets.report import DatasetReport
from vireid_lightning.data.images.headers import read_header
from vireid_lightning.data.images.reading import BadImageError, check_header, decode, read_content, read_start
from vireid_lightning.types import MODALITIES, Sample


@dataclass(frozen=True)
class _Looked:
    """What a look at a file shows; the last two only of a decoded image."""

    problem: str = ""
    bits: int | None = None
    is_constant: bool = False
    digest: bytes | None = None


def check_images(
    dataset: ReIDDataset, splits: Mapping[Split, list[Sample]], *, deep: bool, report: DatasetReport
) -> None:
    """Look at every image file of a dataset and report what is wrong with it.

    Args:
        dataset: The dataset.
        splits: The images of each split.
        deep: Decode every image, and look for constant images and files of the same content.
        report: Filled in.
    """
    samples = {sample.path: sample for listed in splits.values() for sample in listed}
    paths = sorted(samples)

    def look(path: str) -> _Looked:
        return (_decode if deep else _glance)(dataset.root / path)

    # Reading and decoding release the interpreter's lock, so threads suffice, on every system.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = tqdm(pool.map(look, paths), total=len(paths), desc="Decoding", unit="image", disable=not deep)
        found = dict(zip(paths, looks))
    if deep:
        report.decoded = len(paths)
    bad = [path for path in paths if found[path].problem]
    if bad:
        report.add_fault(
            f"Image files that cannot be used, {len(bad)}: {join_first(bad)}. {found[bad[0]].problem}",
            "Mend or remove them, copy them again from the original download, or set on_bad_image: skip to leave them "
            "out of training.",
        )
    for modality, name in enumerate(MODALITIES):
        _report_bits(name, [found[path].bits for path in paths if samples[path].modality == modality], report)
    constant = [path for path in paths if found[path].is_constant]
    if constant:
        report.add_fault(
            f"Images of a single colour, {len(constant)}: {join_first(constant)}.",
            "Remove them, or look why the camera wrote them; nobody can be told by them.",
        )
    _report_duplicates(splits, samples, {path: found[path].digest for path in paths}, report)


def _glance(path: Path) -> _Looked:
    """Look at the first bytes of a file."""
    try:
        start = read_start(path)
        # A JPEG may have much before its image, such as a preview; it has 8 bits.
        if start.startswith(b"\xff\xd8\xff") and read_header(start) is None:
            return _Looked(bits=8)
        return _Looked(bits=check_header(path, start).bits)
    except BadImageError as error:
        return _Looked(problem=str(error))


def _decode(path: Path) -> _Looked:
    """Read and decode a file."""
    try:
        content = read_content(path)
        header = check_header(path, content)
        values = decode(path, content, header)
    except BadImageError as error:
        return _Looked(problem=str(error))
    is_constant = bool((values == values[:1, :1]).all())
    return _Looked(bits=header.bits, is_constant=is_constant, digest=hashlib.sha256(content).digest())


def _report_bits(modality: str, bits: Sequence[int | None], report: DatasetReport) -> None:
    """Report how many images of a modality have how many bits; several depths are a fault."""
    counts = dict(sorted(Counter(number for number in bits if number is not None).items()))
    if counts:
        report.bits[modality] = counts
    if max(counts, default=0) > 8:
        report.notes.append(
            f"{sum(count for number, count in counts.items() if number > 8):,} {modality} images have more than 8 "
            f"bits: to train and test on them, set data.intensity_range.{modality} to the two values that become black "
            f"and white, or data.intensity_range.{modality}_percentiles."
        )
    if len(counts) > 1:
        depths = ", ".join(f"{number} ({count:,})" for number, count in counts.items())
        report.add_fault(
            f"The {modality} images differ in bits, with their numbers: {depths}.",
            "Export all of them in one way; the same temperature or light should be the same value.",
        )


def _report_duplicates(
    splits: Mapping[Split, list[Sample]],
    samples: Mapping[str, Sample],
    digests: Mapping[str, bytes | None],
    report: DatasetReport,
) -> None:
    """Report files of the same content: a fault across splits or identities, else a note."""
    groups: dict[bytes, list[str]] = {}
    for path, digest in digests.items():
        if digest is not None:
            groups.setdefault(digest, []).append(path)
    split_of = {sample.path: split for split, listed in splits.items() for sample in listed}
    same: dict[str, list[str]] = {"splits": [], "identities": [], "": []}
    for group in groups.values():
        if len(group) > 1:
            across_splits = len({split_of[path] for path in group}) > 1
            across_identities = len({samples[path].identity for path in group}) > 1
            kind = "splits" if across_splits else "identities" if across_identities else ""
            same[kind].append(" = ".join(group[:3]) + (f" = {len(group) - 3} more" if len(group) > 3 else ""))
    for kind in ("splits", "identities"):
        if same[kind]:
            report.add_fault(
                f"Images of the same bytes in different {kind}, {len(same[kind])}: {join_first(same[kind])}.",
                "Keep each image once; scores are flattered or labels contradict each other otherwise.",
            )
    if same[""]:
        report.notes.append(
            f"Images of the same bytes within an identity and split, {len(same[''])}: {join_first(same[''])}."
        )
