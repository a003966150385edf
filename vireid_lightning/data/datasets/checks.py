"""Finding what is wrong with a dataset's folder, and saying what to do about it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.counts import compare_counts
from vireid_lightning.data.datasets.folders import tolerate_missing_files
from vireid_lightning.data.datasets.index_files import join_first
from vireid_lightning.data.datasets.report import DatasetReport
from vireid_lightning.data.images.reading import BadImageError, read_image
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES, UNKNOWN, Sample

#: How JPEG, PNG, BMP, TIFF (in either byte order) and WebP files begin.
_IMAGES_BEGIN_WITH = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def check_dataset(dataset: ReIDDataset, *, deep: bool = False) -> DatasetReport:
    """Count a dataset's images and look for faults.

    A folder with at least half and at most twice the published number of identities in each split is held against the
    published counts. Any other is taken for a subset or a stand-in, which is noted, and is held against its own index
    files alone.

    Args:
        dataset: The dataset; opened with its class's ``check_options``, each image is counted once.
        deep: Decode every image (in threads, with a progress bar) instead of only looking for empty files.

    Returns:
        The report.
    """
    report = DatasetReport(dataset.name, str(dataset.root))
    splits = _list_splits(dataset, report)
    compare_counts(dataset, splits, report)
    for split, samples in splits.items():
        _check_listed(dataset, split, samples, report)
        _check_modalities(dataset, split, samples, report)
    _check_overlap(splits, report)
    paths = sorted({sample.path for samples in splits.values() for sample in samples})
    if deep:
        report.decoded = len(paths)
    _check_files(dataset.root, paths, deep, report)
    if report.complete and "train" in splits and "test" in splits:
        report.fingerprint = dataset.fingerprint()
    return report


def _list_splits(dataset: ReIDDataset, report: DatasetReport) -> dict[Split, list[Sample]]:
    """List each split once; one that cannot be listed is a fault."""
    names: tuple[Split, ...] = ("train", "val", "test")
    splits: dict[Split, list[Sample]] = {}
    for split in names:
        try:
            with tolerate_missing_files() as tolerated:
                samples = dataset.samples(split)
        except VIReIDError as error:
            report.add_error(error)
            continue
        for missing_files, paths in tolerated:  # the files that are there are counted and checked all the same
            report.add_error(missing_files)
            report.complete = False
            samples = [sample for sample in samples if sample.path not in paths]
        splits[split] = samples
        if not samples:
            report.notes.append(f"The split {split} has no images.")
    if splits.get("val") == splits.get("test"):
        splits.pop("val", None)
    return splits


def _check_listed(dataset: ReIDDataset, split: Split, samples: list[Sample], report: DatasetReport) -> None:
    """Report the images that an index file lists and the folders lack, and the other way round."""
    try:
        listing = dataset.listed(split)
    except VIReIDError as error:
        report.add_error(error)
        return
    if listing is None:
        return
    listed, found = {sample.path for sample in listing}, {sample.path for sample in samples}
    missing, unlisted = sorted(listed - found), sorted(found - listed)
    if missing:
        report.add_fault(
            f"Missing {split} images that {dataset.listed_in} lists, {len(missing)}: {join_first(missing)}.",
            "Unpack the original download again; the benchmark's protocols cannot be built without them.",
        )
    if unlisted:
        report.add_fault(
            f"Unknown {split} images that {dataset.listed_in} does not list, {len(unlisted)}: {join_first(unlisted)}.",
            "Remove them; with images that are not of the benchmark, its protocols are refused.",
        )


def _check_modalities(dataset: ReIDDataset, split: Split, samples: list[Sample], report: DatasetReport) -> None:
    """Report the identities that only one modality shows, where the dataset has two."""
    if len(dataset.modalities) < len(MODALITIES):
        return
    seen: dict[int, set[int]] = {}
    for sample in samples:
        if sample.identity != UNKNOWN:
            seen.setdefault(sample.identity, set()).add(sample.modality)
    for modality, name in enumerate(MODALITIES):
        alone = sorted(identity for identity, modalities in seen.items() if modalities == {modality})
        if alone:
            use = "training leaves them out" if split == "train" else "their queries count as having no true match"
            report.add_fault(
                f"Identities of {split} with {name} images only, {len(alone)}: {join_first(alone)}.",
                f"Add their {MODALITIES[1 - modality]} images, or accept that {use}.",
            )


def _check_overlap(splits: Mapping[Split, list[Sample]], report: DatasetReport) -> None:
    """Report the identities that are both trained on and searched for; most datasets refuse them when opened."""
    identities = {split: {sample.identity for sample in samples} - {UNKNOWN} for split, samples in splits.items()}
    both = sorted(identities.get("train", set()) & (identities.get("val", set()) | identities.get("test", set())))
    if both:
        report.add_fault(
            f"Identities both in train and in what is searched, {len(both)}: {join_first(both)}.",
            "Give the people of each split their own numbers; scores are flattered otherwise.",
        )


def _check_files(root: Path, paths: Sequence[str], deep: bool, report: DatasetReport) -> None:
    """Report the files that cannot be read or do not begin as an image; if ``deep``, those that cannot be decoded."""

    def is_bad(path: str) -> bool:
        try:
            if deep:
                read_image(root / path)
                return False
            with (root / path).open("rb") as file:
                return not file.read(4).startswith(_IMAGES_BEGIN_WITH)
        except (OSError, BadImageError):
            return True

    # Reading and decoding release the interpreter's lock, so threads suffice, on every system.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(is_bad, paths), total=len(paths), desc="Decoding", unit="image", disable=not deep)
        bad = [path for is_bad_file, path in zip(found, paths) if is_bad_file]
    if bad:
        kind = "empty, truncated or no images" if deep else "empty, unreadable or no images"
        report.add_fault(
            f"Image files that are {kind}, {len(bad)}: {join_first(bad)}.",
            "Copy them again from the original download, or set on_bad_image: skip to leave them out.",
        )
