"""What the protocols of several benchmarks share: finding images in a list of samples, drawing galleries, checking."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import CMC, SYSU_GALLERY_CAMERA, SYSU_QUERY_CAMERA, Protocol, Removal, Trial
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Sample

#: Trials of every sampled benchmark protocol.
TRIALS = 10

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


def positions_by_path(dataset: str, samples: Sequence[Sample]) -> dict[str, int]:
    """Return the position of each path; a path that occurs twice is a :class:`VIReIDError`."""
    positions: dict[str, int] = {}
    for position, sample in enumerate(samples):
        if positions.setdefault(sample.path, position) != position:
            raise VIReIDError(f"{dataset}: the image {sample.path} is listed twice. Keep one row for each image.")
    return positions


def draw_one_per_folder(
    samples: Sequence[Sample], positions: Iterable[int], cameras: Sequence[int], trial: int
) -> NDArray[np.int64]:
    """Draw one image of each identity and camera, as the ``seeded`` galleries of AGW and most later code do.

    One ``random.Random(trial)`` runs through the identities in sorted order of their zero-padded names (that is, by
    number), and within an identity through the cameras in the order given; it makes one ``choice`` from the sorted
    files of that identity and camera. An identity without an image in a camera draws nothing there.

    Args:
        samples: All samples.
        positions: Positions of the images that may be drawn.
        cameras: The gallery's cameras, in the order in which the benchmark's code lists them.
        trial: The seed.

    Returns:
        Positions in ``samples``, in the order of drawing.
    """
    folders: dict[tuple[int, int], list[int]] = {}
    for position in positions:
        folders.setdefault((samples[position].identity, samples[position].camera), []).append(position)
    generator = random.Random(trial)
    drawn = []
    for identity in sorted({identity for identity, _ in folders}):
        for camera in cameras:
            files = sorted(folders.get((identity, camera), []), key=lambda position: samples[position].path)
            if files:
                drawn.append(generator.choice(files))
    return np.array(drawn, dtype=np.int64)


def has_right_image(columns: SampleColumns, trial: Trial, removal: Removal) -> NDArray[np.bool_]:
    """Return for each query of a trial whether the gallery it may see holds an image of its identity, (Q,) bool."""
    query_identity, query_camera = columns.identity[trial.query], columns.camera[trial.query]
    gallery_identity, gallery_camera = columns.identity[trial.gallery], columns.camera[trial.gallery]
    right = np.isin(query_identity, gallery_identity)
    if removal == "sysu":
        seen = np.isin(query_identity, gallery_identity[gallery_camera != SYSU_GALLERY_CAMERA])
        return np.where(query_camera == SYSU_QUERY_CAMERA, seen, right)
    if removal == "same-camera":
        cameras: dict[int, set[int]] = {}
        for identity, camera in zip(gallery_identity.tolist(), gallery_camera.tolist()):
            cameras.setdefault(identity, set()).add(camera)
        pairs = zip(query_identity.tolist(), query_camera.tolist())
        left = [bool(cameras.get(i, set()) - ({c} if c != UNKNOWN else set())) for i, c in pairs]
        return np.array(left, dtype=bool)
    return right


def check_protocol(dataset: str, protocol: Protocol, columns: SampleColumns) -> Protocol:
    """Return ``protocol``, or raise a :class:`VIReIDError` if one of its trials could score no query at all."""
    for number, trial in enumerate(protocol.trials):
        if not len(trial.query):
            raise VIReIDError(
                f"{dataset}: protocol {protocol.name} has no query image. Add query images, or correct the index files."
            )
        if not has_right_image(columns, trial, protocol.removal).any():
            raise VIReIDError(
                f"{dataset}: protocol {protocol.name}, trial {number}, has a gallery of {len(trial.gallery)} images "
                "and none shows the identity of any query. Check that query and gallery come from the same identities."
            )
    return protocol


def expected_positions(
    dataset: str, samples: Sequence[Sample], positions: dict[str, int], expected: Sequence[Sample]
) -> NDArray[np.int64]:
    """Return where each expected image stands in ``samples``.

    Raises:
        VIReIDError: Some are not there, come with another identity, camera or modality, or are not expected.
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


def direction_protocol(
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
        dataset: Name for messages.
        columns: Of the samples that the positions point into.
        modality: The queries' modality.
        trials: Query and gallery positions of each trial.
        removal: Which gallery images a query skips.
        cmc: What the CMC curve counts.
        labels: Further labels of the protocol.
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


def all_against_all(
    dataset: str, samples: Sequence[Sample], expected: Sequence[Sample], *, cmc: CMC, **labels: str
) -> list[Protocol]:
    """Return both directions: every expected image of one modality against every one of the other, one trial.

    Args:
        dataset: Name for messages.
        samples: The list that the protocols' positions point into.
        expected: The images of the benchmark's split; all must be in ``samples``.
        cmc: What the CMC curve counts.
        labels: Further labels of the protocols.
    """
    columns = SampleColumns.of(samples)
    positions = expected_positions(dataset, samples, positions_by_path(dataset, samples), expected)
    modality = columns.modality[positions]
    return [
        direction_protocol(
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
