"""Comparing the number of a dataset's images with what its authors published or its index files list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vireid_lightning.data.datasets.base import PublishedSplit, ReIDDataset, Split
from vireid_lightning.data.datasets.report import Count, DatasetReport
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES, UNKNOWN, Sample


def compare_counts(dataset: ReIDDataset, splits: Mapping[Split, list[Sample]], report: DatasetReport) -> None:
    """Fill in a report's counts, and add a fault for each that differs from what it should be.

    Args:
        dataset: The dataset.
        splits: The images found in each split.
        report: Filled in.
    """
    published = dataset.published
    differing = [
        f"{len(dataset.identities(split))} {split} identities instead of {size.identities}"
        for split, size in published.items()
        if split in splits
        and size.identities is not None
        # A damaged folder still has nearly all of them.
        and not size.identities <= 2 * len(dataset.identities(split)) <= 4 * size.identities
    ]
    if differing:
        report.notes.append(
            f"The folder has {' and '.join(differing)}: it is a subset of {dataset.name} or a stand-in, so it is held "
            "against its own index files, and its scores are not comparable with published ones."
        )
    for split, samples in splits.items():
        size = published.get(split) if published and not differing else _measure_listed(dataset, split)
        for count in _count_split(split, samples, size or PublishedSplit(None, {})):
            report.counts.append(count)
            if count.expected not in (None, count.found):
                what = count.what if count.what == "identities" else f"{count.what} images"
                camera = "" if count.camera is None else f" of camera {count.camera}"
                report.add_fault(
                    f"The split {split} has {count.found} {what}{camera} where {count.expected} are expected.",
                    "Unpack the original download again, and compare no scores with published ones until it fits.",
                )


def _measure_listed(dataset: ReIDDataset, split: Split) -> PublishedSplit | None:
    """Return the size that a stand-in's own index files give, where they list every image."""
    try:
        listed = dataset.listed(split)
    except VIReIDError:
        return None  # reported where the list is compared with the folder
    if listed is None:
        return None
    images: dict[tuple[int, int | None], int] = {}
    for sample in listed:
        images[sample.modality, sample.camera] = images.get((sample.modality, sample.camera), 0) + 1
    return PublishedSplit(len(dataset.identities(split)), images)


def _count_split(split: Split, samples: Sequence[Sample], size: PublishedSplit) -> list[Count]:
    """Count a split's identities, and its images by modality and camera.

    A modality is counted over all cameras as well where that is what the expected size gives.
    """
    identities = {sample.identity for sample in samples} - {UNKNOWN}
    counts = [Count(split, "identities", None, size.identities, len(identities))]
    for modality, what in enumerate(MODALITIES):
        found = Counter(sample.camera for sample in samples if sample.modality == modality)
        expected = {camera: images for (m, camera), images in size.images.items() if m == modality}
        if None in expected:
            counts.append(Count(split, what, None, expected[None], found.total()))
        cameras = {camera for camera in expected if camera is not None}.union(found)
        counts += [Count(split, what, camera, expected.get(camera), found[camera]) for camera in sorted(cameras)]
    return counts
