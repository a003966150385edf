"""Comparing a dataset's folder with what its index files list and what its authors published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.index_files import shown, tolerated_missing_files
from vireid_lightning.data.datasets.published import PUBLISHED, PublishedSplit
from vireid_lightning.data.datasets.sysu_mm01 import SYSUMM01
from vireid_lightning.data.datasets.visible_only import VisibleSource
from vireid_lightning.data.images.reading import BadImageError, read_image
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES, UNKNOWN, Sample


@dataclass(frozen=True)
class Count:
    """One line of the comparison.

    Attributes:
        split: The split counted.
        what: ``identities``, ``visible`` or ``infrared``.
        camera: The camera of these images; None for all of the split's cameras, -1 where unknown.
        expected: The published number, or that of a stand-in's own index files; None where neither is known.
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
        fingerprint: Of the lists of images; None where they could not be read.
        decoded: How many images were decoded; 0 unless asked for.
        complete: Whether every listed file is there.
    """

    dataset: str
    root: str
    counts: list[Count] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    decoded: int = 0
    complete: bool = True


def check_dataset(dataset: ReIDDataset, *, deep: bool = False) -> DatasetReport:
    """Count a dataset's images and look for faults.

    A folder with at least half and at most twice the published number of identities in each split is held against the
    published counts. Any other is taken for a subset or a stand-in, which is noted, and is held against its own index
    files alone.

    Args:
        dataset: The dataset; SYSU-MM01's with ``train="train", validation="val"`` counts each of its parts once.
        deep: Decode every image (in threads, with a progress bar) instead of only looking for empty files.

    Returns:
        The report.
    """
    report = DatasetReport(dataset.name, str(dataset.root))
    splits = _list_splits(dataset, report)
    _compare_counts(dataset, splits, report)
    if not isinstance(dataset, VisibleSource):
        for split, samples in splits.items():
            _check_listed(dataset, split, samples, report)
            _check_modalities(split, samples, report)
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
    splits: dict[Split, list[Sample]] = {}
    for split in ("train", "val", "test"):
        try:
            with tolerated_missing_files() as missing:
                samples = dataset.samples(split)
        except VIReIDError as error:
            _add_error(error, report)
            continue
        for error, paths in missing:  # the others are counted and looked at all the same
            _add_error(error, report)
            report.complete = False
            samples = [sample for sample in samples if sample.path not in paths]
        splits[split] = samples
        if not samples:
            report.notes.append(f"The split {split} has no images.")
    if splits.get("val") == splits.get("test"):
        splits.pop("val", None)
    return splits


def _add_error(error: VIReIDError, report: DatasetReport) -> None:
    """Turn an error of the dataset into a fault; its last sentence says what to do."""
    problem, _, remedy = str(error).rpartition(". ")
    fault = Fault(f"{problem}.", remedy)
    if fault not in report.faults:  # a file that several splits need fails alike for all of them
        report.faults.append(fault)


def _compare_counts(dataset: ReIDDataset, splits: dict[Split, list[Sample]], report: DatasetReport) -> None:
    """Fill the counts, and report those that differ from what they should be."""
    published = PUBLISHED.get(dataset.name, {})
    differing = [
        f"{len(dataset.identities(split))} {split} identities instead of {size.identities}"
        for split, size in published.items()
        if split in splits
        and size.identities is not None
        # A damaged folder has nearly all of them.
        and not size.identities <= 2 * len(dataset.identities(split)) <= 4 * size.identities
    ]
    if differing:
        report.notes.append(
            f"The folder has {' and '.join(differing)}: it is a subset of {dataset.name} or a stand-in, so it is held "
            "against its own index files, and its scores are not comparable with published ones."
        )
    for split, samples in splits.items():
        size = published.get(split) if published and not differing else _listed_size(dataset, split)
        size = size or PublishedSplit(None, {})
        found = len({sample.identity for sample in samples} - {UNKNOWN})
        counts = [Count(split, "identities", None, size.identities, found)]
        counts += _count_images(split, samples, size.images)
        report.counts += counts
        report.faults += [
            Fault(
                f"The split {split} has {count.found} {count.what}{'' if count.what == 'identities' else ' images'}"
                + (f" of camera {count.camera}" if count.camera is not None else "")
                + f" where {count.expected} are expected.",
                "Unpack the original download again, and compare no scores with published ones until it fits.",
            )
            for count in counts
            if count.expected not in (None, count.found)
        ]


def _listed_size(dataset: ReIDDataset, split: Split) -> PublishedSplit | None:
    """Return the size that a stand-in's own index files give, where they list every image."""
    if not isinstance(dataset, SYSUMM01):
        return None  # the samples come from the lists themselves, or no list names the images
    try:
        listed = dataset.listed(split)
    except VIReIDError:
        return None  # reported where the lists are compared with the folder
    images = Counter((sample.modality, sample.camera) for sample in listed)
    return PublishedSplit(len(dataset.identities(split)), dict(images))


def _count_images(split: Split, samples: Sequence[Sample], published: dict[tuple[int, int | None], int]) -> list[Count]:
    """Count one split's images by modality and camera, and together where the published count is for all cameras."""
    cameras = Counter((sample.modality, sample.camera) for sample in samples)
    found: dict[tuple[int, int | None], int] = {}
    for modality in range(len(MODALITIES)):
        of_modality = {camera: count for (m, camera), count in cameras.items() if m == modality}
        listed = {camera for m, camera in published if m == modality}
        if None in listed:
            found[modality, None] = sum(of_modality.values())
        for camera in sorted(set(of_modality) | (listed - {None})):
            found[modality, camera] = of_modality.get(camera, 0)
    return [
        Count(split, MODALITIES[modality], camera, published.get((modality, camera)), count)
        for (modality, camera), count in found.items()
    ]


def _check_listed(dataset: ReIDDataset, split: Split, samples: list[Sample], report: DatasetReport) -> None:
    """Hold SYSU-MM01's folders against its matrices; the other layouts' lists were read for the samples themselves."""
    if not isinstance(dataset, SYSUMM01):
        return
    try:
        listed = {sample.path for sample in dataset.listed(split)}
    except VIReIDError as error:
        _add_error(error, report)
        return
    found = {sample.path for sample in samples}
    missing, unlisted = sorted(listed - found), sorted(found - listed)
    if missing:
        report.faults.append(
            Fault(
                f"Missing {split} images that exp/rand_perm_cam.mat lists, {len(missing)}: {shown(missing)}.",
                "Unpack the original download again; the official protocols cannot be built without them.",
            )
        )
    if unlisted:
        report.faults.append(
            Fault(
                f"Unknown {split} images that exp/rand_perm_cam.mat does not list, {len(unlisted)}: {shown(unlisted)}.",
                "Remove them; with images that are not of the benchmark, its protocols are refused.",
            )
        )


def _check_modalities(split: Split, samples: list[Sample], report: DatasetReport) -> None:
    """Report the identities that only one modality shows."""
    seen: dict[int, set[int]] = {}
    for sample in samples:
        if sample.identity != UNKNOWN:
            seen.setdefault(sample.identity, set()).add(sample.modality)
    for modality, name in enumerate(MODALITIES):
        alone = sorted(identity for identity, modalities in seen.items() if modalities == {modality})
        if alone:
            use = "training leaves them out" if split == "train" else "their queries count as having no right image"
            report.faults.append(
                Fault(
                    f"Identities of {split} with {name} images only, {len(alone)}: {shown(alone)}.",
                    f"Add their {MODALITIES[1 - modality]} images, or accept that {use}.",
                )
            )


def _check_overlap(splits: dict[Split, list[Sample]], report: DatasetReport) -> None:
    """Report the identities that are both trained on and searched for; most datasets refuse them when opened."""
    identities = {split: {sample.identity for sample in samples} - {UNKNOWN} for split, samples in splits.items()}
    both = sorted(identities.get("train", set()) & (identities.get("val", set()) | identities.get("test", set())))
    if both:
        report.faults.append(
            Fault(
                f"Identities both in train and in what is searched, {len(both)}: {shown(both)}.",
                "Give the people of each split their own numbers; scores are flattered otherwise.",
            )
        )


#: How JPEG, PNG, BMP, TIFF (in either byte order) and WebP files begin.
_IMAGES_BEGIN_WITH = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def _check_files(root: Path, paths: Sequence[str], deep: bool, report: DatasetReport) -> None:
    """Report the files that cannot be read or do not begin as an image; if ``deep``, those that cannot be decoded."""

    def problem(path: str) -> str | None:
        if not deep:
            try:
                with (root / path).open("rb") as file:
                    start = file.read(4)
            except OSError as error:
                return f"cannot be read ({error.strerror})"
            return None if start.startswith(_IMAGES_BEGIN_WITH) else "is no image"
        try:
            read_image(root / path)
        except BadImageError as error:
            return str(error)
        return None

    # Reading and decoding release the interpreter's lock, so threads suffice, on every system.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(problem, paths), total=len(paths), desc="Decoding", unit="image", disable=not deep)
        bad = [path for found, path in zip(bar, paths) if found]
    if bad:
        kind = "empty, truncated or no images" if deep else "empty, unreadable or no images"
        report.faults.append(
            Fault(
                f"Image files that are {kind}, {len(bad)}: {shown(bad)}.",
                "Copy them again from the original download, or set on_bad_image: skip to leave them out.",
            )
        )
