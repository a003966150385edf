"""What the protocols of several benchmarks share: finding their images in a list of samples, building, choosing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.protocols import CMC, Protocol, Removal, Trial, is_removed
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE, Sample

#: The protocols' names, by the modality of the query.
DIRECTIONS = {VISIBLE: "visible-to-infrared", INFRARED: "infrared-to-visible"}


@dataclass(frozen=True)
class SampleColumns:
    """The fields of a list of samples as arrays, aligned with the list."""

    identity: NDArray[np.int64]
    modality: NDArray[np.int64]
    camera: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleColumns:
        """Collect the columns of ``samples``."""
        table = np.array([(s.identity, s.modality, s.camera) for s in samples], dtype=np.int64).reshape(-1, 3)
        return cls(identity=table[:, 0], modality=table[:, 1], camera=table[:, 2])


def index_by_path(dataset: str, samples: Sequence[Sample]) -> dict[str, int]:
    """Return the position of each path; a path that occurs twice is a :class:`VIReIDError`."""
    positions: dict[str, int] = {}
    for position, sample in enumerate(samples):
        if positions.setdefault(sample.path, position) != position:
            raise VIReIDError(f"{dataset}: the image {sample.path} is listed twice. Keep one row for each image.")
    return positions


def has_true_match(columns: SampleColumns, trial: Trial, removal: Removal) -> NDArray[np.bool_]:
    """Return for each query of a trial whether the gallery that it searches holds a true match, (Q,) bool."""
    query_identity, query_camera = columns.identity[trial.query], columns.camera[trial.query]
    gallery_identity, gallery_camera = columns.identity[trial.gallery], columns.camera[trial.gallery]
    matched = np.zeros(len(trial.query), dtype=bool)
    # The rules tell gallery images of one identity apart by their camera alone, so that no table of queries x gallery
    # is needed, which a gallery of a million images would not allow.
    for camera in np.unique(gallery_camera):
        filmed = np.isin(query_identity, gallery_identity[gallery_camera == camera])
        matched |= filmed & ~is_removed(removal, filmed, query_camera, camera)
    return matched


def check_protocol(dataset: str, protocol: Protocol, columns: SampleColumns) -> Protocol:
    """Return ``protocol``, or raise a :class:`VIReIDError` if one of its trials could score no query at all."""
    for number, trial in enumerate(protocol.trials):
        if not len(trial.query):
            raise VIReIDError(
                f"{dataset}: protocol {protocol.name} has no query image. Add query images, or correct the index files."
            )
        if not has_true_match(columns, trial, protocol.removal).any():
            if has_true_match(columns, trial, "none").any():
                raise VIReIDError(
                    f"{dataset}: protocol {protocol.name}, trial {number}, leaves no query a true match: every one in "
                    f"its gallery of {len(trial.gallery)} images is skipped by the rule {protocol.removal}, which goes "
                    "by the camera number. Give each sensor its own camera number, or leave the camera out."
                )
            raise VIReIDError(
                f"{dataset}: protocol {protocol.name}, trial {number}, has a gallery of {len(trial.gallery)} images "
                "and none shows the identity of any query. Check that query and gallery come from the same identities."
            )
    return protocol


def find_expected(
    dataset: str, samples: Sequence[Sample], positions: dict[str, int], expected: Sequence[Sample]
) -> NDArray[np.int64]:
    """Return where each expected image stands in ``samples``.

    Raises:
        VIReIDError: An expected image is missing or comes with another identity, camera or modality, or an image is
            not expected.
    """
    known = {sample.path for sample in expected}
    missing = [sample.path for sample in expected if sample.path not in positions]
    if missing:
        raise VIReIDError(
            f"{dataset}: {len(missing)} of the {len(expected)} images that the protocols need are not among the "
            f"samples, the first is {missing[0]}. Extract embeddings of the whole split, with paths relative to the "
            "root, or complete the dataset's folder."
        )
    surplus = [sample.path for sample in samples if sample.path not in known]
    if surplus:
        raise VIReIDError(
            f"{dataset}: {len(surplus)} images are none of the {len(expected)} that the split lists, the first is "
            f"{surplus[0]}. Embed the images of the split alone; if these are the split's, complete the dataset's "
            "folder, and if they are not of the dataset at all, remove them from it."
        )
    for sample in expected:
        given = samples[positions[sample.path]]
        if given != sample:
            raise VIReIDError(
                f"{dataset}: {sample.path} comes with identity {given.identity}, camera {given.camera} and modality "
                f"{given.modality}, but the dataset says identity {sample.identity}, camera {sample.camera} and "
                f"modality {sample.modality}. Write these three as the dataset numbers them."
            )
    return np.array([positions[sample.path] for sample in expected], dtype=np.int64)


def build_direction(
    dataset: str,
    columns: SampleColumns,
    modality: int,
    trials: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    removal: Removal,
    cmc: CMC,
    **labels: str,
) -> Protocol:
    """Build and check the protocol of one direction, named after it.

    Args:
        dataset: The dataset's name, for messages.
        columns: Columns of the samples that the positions point into.
        modality: The queries' modality.
        trials: Query and gallery positions of each trial.
        removal: Which gallery images a query skips.
        cmc: What the CMC curve counts.
        labels: Further labels that the protocol carries.
    """
    name = DIRECTIONS[modality]
    built = tuple(Trial(query=query, gallery=gallery) for query, gallery in trials)
    for trial in built:
        for part, wanted, role in ((trial.query, modality, "query"), (trial.gallery, 1 - modality, "gallery")):
            if not len(part):
                raise VIReIDError(
                    f"{dataset}: there is no {MODALITIES[wanted]} {role} image, and protocol {name} needs some. Add "
                    "them, or correct the index files."
                )
    protocol = Protocol(name=name, trials=built, removal=removal, cmc=cmc, labels={"direction": name, **labels})
    return check_protocol(dataset, protocol, columns)


def build_all_against_all(
    dataset: str, samples: Sequence[Sample], expected: Sequence[Sample], *, cmc: CMC, **labels: str
) -> list[Protocol]:
    """Return both directions: every expected image of one modality against every one of the other, one trial.

    Args:
        dataset: The dataset's name, for messages.
        samples: The list that the protocols' positions point into.
        expected: The images of the benchmark's split; all must be in ``samples``.
        cmc: What the CMC curve counts.
        labels: Further labels that the protocols carry.
    """
    columns = SampleColumns.of(samples)
    positions = find_expected(dataset, samples, index_by_path(dataset, samples), expected)
    modality = columns.modality[positions]
    return [
        build_direction(
            dataset,
            columns,
            query,
            [(positions[modality == query], positions[modality == 1 - query])],
            removal="none",
            cmc=cmc,
            sampling="all",
            **labels,
        )
        for query in DIRECTIONS
    ]


def choose_protocol(dataset: str, name: str, protocols: Sequence[Protocol]) -> Protocol:
    """Return the protocol of that name.

    Args:
        dataset: The dataset's name, for the message.
        name: Name of the wanted protocol.
        protocols: The protocols to choose from.

    Raises:
        VIReIDError: No protocol has that name; the message lists the names and the nearest.
    """
    by_name = {protocol.name: protocol for protocol in protocols}
    if name not in by_name:
        raise VIReIDError(
            f"{dataset} has no validation protocol '{name}', only {', '.join(by_name)}.{did_you_mean(name, by_name)} "
            "Set validation_protocol to one of them."
        )
    return by_name[name]


def keep_used(protocol: Protocol, samples: Sequence[Sample]) -> tuple[list[Sample], Protocol]:
    """Return the samples that a protocol uses, in their order, and the protocol as positions among them."""
    used = protocol.samples_used()
    trials = tuple(
        Trial(query=np.searchsorted(used, trial.query), gallery=np.searchsorted(used, trial.gallery))
        for trial in protocol.trials
    )
    return [samples[position] for position in used], replace(protocol, trials=trials)
