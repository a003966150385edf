"""Finding what is wrong with a dataset's folder, and saying what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.data.datasets.counts import compare_counts
from vireid_lightning.data.datasets.folders import tolerate_missing_files
from vireid_lightning.data.datasets.image_checks import check_images
from vireid_lightning.data.datasets.index_files import join_first
from vireid_lightning.data.datasets.report import DatasetReport
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES, UNKNOWN, Sample


def check_dataset(dataset: ReIDDataset, *, deep: bool = False, configured: ReIDDataset | None = None) -> DatasetReport:
    """Count a dataset's images and look for faults.

    A folder with at least half and at most twice the published number of identities in each split is held against the
    published counts. Any other is taken for a subset or a stand-in, which is noted, and is held against its own index
    files alone.

    Args:
        dataset: The dataset; opened with its class's ``check_options``, each image is counted once.
        deep: Decode every image (in threads, with a progress bar) and look for constant and duplicate ones, instead
            of only looking for empty files.
        configured: The dataset opened as a config opens it, whose fingerprint results carry; None: ``dataset``.

    Returns:
        The report.
    """
    report = DatasetReport(dataset.name, str(dataset.root))
    splits = _list_splits(dataset, report)
    compare_counts(dataset, splits, report)
    for split, samples in splits.items():
        _check_listed(dataset, split, samples, report)
        _check_modalities(dataset, split, samples, report)
    _check_overlap(dataset, splits, report)
    # A benchmark's protocols fail for every fault found so far, and would repeat it.
    if report.complete and not (report.faults and dataset.published):
        _check_protocols(dataset, splits, report)
    check_images(dataset, splits, deep=deep, report=report)
    if report.complete and "train" in splits and "test" in splits:
        report.fingerprint = (configured or dataset).fingerprint()
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
                f"Identities of {split} with {name} images only, {len(alone)}: {_name(dataset, alone)}.",
                f"Add their {MODALITIES[1 - modality]} images, or accept that {use}.",
            )


def _check_overlap(dataset: ReIDDataset, splits: Mapping[Split, list[Sample]], report: DatasetReport) -> None:
    """Report the identities that are both trained on and searched for; most datasets refuse them when opened."""
    identities = {split: {sample.identity for sample in samples} - {UNKNOWN} for split, samples in splits.items()}
    both = sorted(identities.get("train", set()) & (identities.get("val", set()) | identities.get("test", set())))
    if both:
        report.add_fault(
            f"Identities both in train and in what is searched, {len(both)}: {_name(dataset, both)}.",
            "Give the people of each split their own numbers; scores are flattered otherwise.",
        )


def _check_protocols(dataset: ReIDDataset, splits: Mapping[Split, list[Sample]], report: DatasetReport) -> None:
    """Report protocols that cannot be built, and camera numbers by which they skip the images of the other sensor."""
    for split, samples in splits.items():
        if split == "train" or not samples or len(dataset.modalities) < len(MODALITIES):
            continue
        try:
            protocols = dataset.protocols(samples, split)
        except VIReIDError as error:
            report.add_error(error)  # which says so where the camera numbers leave no true match at all
            continue
        # A benchmark's camera numbers and rules are its authors' own.
        if dataset.published or all(protocol.removal != "same-camera" for protocol in protocols):
            continue
        visible, infrared = (
            {sample.camera for sample in samples if sample.modality == modality} for modality in range(len(MODALITIES))
        )
        if both := sorted(visible & infrared - {UNKNOWN}):
            report.add_fault(
                f"Camera numbers of {split} that both sensors have, {len(both)}: {join_first(both)}.",
                "Give each sensor its own camera number: a query skips its own identity's images of its own camera "
                "number, which are then true matches.",
            )


def _name(dataset: ReIDDataset, identities: Iterable[int]) -> str:
    """Join the first of some identities by their names, where they have names."""
    return join_first(dataset.identity_names.get(identity, identity) for identity in identities)
