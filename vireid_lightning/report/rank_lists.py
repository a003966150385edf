"""The rank lists that a report shows: which queries, what was found, and what the protocol left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.metrics.distances import Positions
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.rank_lists import list_nearest
from vireid_lightning.metrics.scores import ProtocolScores
from vireid_lightning.protocols import SYSU_GALLERY_CAMERA, SYSU_QUERY_CAMERA, Protocol
from vireid_lightning.report.text import clean
from vireid_lightning.types import MODALITIES

#: Images of a rank list.
LENGTH = 10

#: Whether the nearest image is a true match, a later one of the list, or none of them.
Outcome = Literal["first", "later", "none"]


@dataclass(frozen=True)
class ListedImage:
    """An image of a rank list.

    Attributes:
        position: Its position in the embeddings.
        path: Its path, made fit to be shown.
        identity: Its identity, by the dataset's name where it has names.
        camera: Its camera; empty where it is not known.
        modality: ``visible`` or ``infrared``; empty where it is not known.
        distance: Its distance from the query; None for the query.
        is_true: Whether it shows the query's identity; None for the query.
    """

    position: int
    path: str
    identity: str
    camera: str
    modality: str
    distance: float | None = None
    is_true: bool | None = None


@dataclass(frozen=True)
class RankList:
    """A query and the nearest images of its gallery.

    Attributes:
        query: The query.
        images: The nearest images, by rank.
        average_precision: From 0 to 1, over the whole gallery.
        first: Rank of the first true match, as the protocol's CMC counts it.
        removed: Number of gallery images that the protocol makes this query skip.
    """

    query: ListedImage
    images: tuple[ListedImage, ...]
    average_precision: float
    first: int
    removed: int

    @property
    def outcome(self) -> Outcome:
        """Where the list has its first true match."""
        right = [image.is_true for image in self.images]
        return "none" if not any(right) else "first" if right[0] else "later"


@dataclass(frozen=True)
class RankListGroup:
    """The rank lists of one trial of a protocol, those with the lowest average precision first.

    Attributes:
        protocol: Name of the protocol.
        direction: Modalities of queries and gallery, such as ``infrared to visible``.
        trials: Number of the protocol's trials, of which the first is shown.
        lists: The lists.
        queries: Number of queries of the trial.
        valid: Number of queries with a true match left.
        gallery: Number of gallery images.
        exclusions: A sentence that says which gallery images a query skips.
    """

    protocol: str
    direction: str
    trials: int
    lists: tuple[RankList, ...]
    queries: int
    valid: int
    gallery: int
    exclusions: str


def choose_rows(rows: Sequence[ProtocolScores], embeddings: Embeddings, default: str | None) -> list[ProtocolScores]:
    """Return the default protocol's row, or the first, and the first row of each other direction.

    Re-ranked rows are left out: their distances are not those of the embeddings.
    """
    plain = [row for row in rows if row.reranking is None]
    plain.sort(key=lambda row: row.name != default)
    chosen: dict[str, ProtocolScores] = {}
    for row in plain:
        chosen.setdefault(name_direction(row.protocol, embeddings), row)
    return list(chosen.values())


def name_direction(protocol: Protocol, embeddings: Embeddings) -> str:
    """Return the modalities of the first trial's queries and gallery, such as ``infrared to visible``."""
    trial = protocol.trials[0]
    sides = (np.unique(embeddings.modality.numpy()[part]).tolist() for part in (trial.query, trial.gallery))
    return " to ".join(" and ".join(_name_modality(value) or "unknown" for value in side) for side in sides)


def list_ranks(
    row: ProtocolScores,
    embeddings: Embeddings,
    *,
    count: int,
    names: Mapping[int, str],
    queries: Sequence[str] = (),
) -> RankListGroup:
    """Return rank lists of the first trial of a protocol.

    Args:
        row: The protocol and its scores.
        embeddings: What its trials point into.
        count: Number of queries: half of them those with the lowest average precision, the others spread evenly over
            the rest.
        names: Names of identities that are not called by their number.
        queries: Paths of the queries to list instead.

    Raises:
        VIReIDError: A path is that of no query with a true match.
    """
    trial, scores = row.protocol.trials[0], row.trials[0]
    precision = scores.of_queries["mAP"]
    if queries:
        places = _find_queries(row.name, trial.query, embeddings, queries, np.isfinite(scores.first))
    else:
        places = choose_queries(precision, count)
    asked = trial.query[places]
    nearest = list_nearest(embeddings, embeddings, row.protocol, trial, asked, count=LENGTH, distance=row.distance)
    lists = []
    for number, place in enumerate(places.tolist()):
        query = _describe(embeddings, int(asked[number]), names)
        found = zip(nearest.position[number].tolist(), nearest.distance[number].tolist())
        own = int(embeddings.identity[query.position])
        images = [
            _describe(embeddings, position, names, value, int(embeddings.identity[position]) == own)
            for position, value in found
            if position >= 0
        ]
        removed = int(nearest.removed[number])
        lists.append(RankList(query, tuple(images), float(precision[place]), int(scores.first[place]), removed))
    return RankListGroup(
        clean(row.name),
        name_direction(row.protocol, embeddings),
        len(row.trials),
        tuple(lists),
        scores.queries,
        scores.valid_queries,
        scores.gallery_images,
        explain_exclusions(row.protocol),
    )


def choose_queries(precision: NDArray[np.float64], count: int) -> Positions:
    """Return the places of at most ``count`` queries by rising average precision; NaN is no query.

    Half of them are those with the lowest, the others are spread evenly over the rest.

    Example:
        >>> choose_queries(np.array([0.9, np.nan, 0.1, 0.5, 0.7]), 2)
        array([2, 0])
    """
    order = np.argsort(precision, kind="stable")[: int(np.isfinite(precision).sum())]
    if len(order) <= count:
        return order
    worst = -(-count // 2)
    spread = np.linspace(len(order) - 1, worst, count - worst, endpoint=False).round().astype(np.int64)
    return np.concatenate([order[:worst], order[spread[::-1]]])


def explain_exclusions(protocol: Protocol) -> str:
    """Return a sentence that says which gallery images a query skips."""
    if protocol.removal == "sysu":
        return (
            f"Queries of camera {SYSU_QUERY_CAMERA} skip the gallery images of camera {SYSU_GALLERY_CAMERA}, which "
            "stands in the same place; they are in no list and no score."
        )
    if protocol.removal == "same-camera":
        return (
            "A query skips the gallery images of its own identity that its own camera took; they are in no list and "
            "no score."
        )
    return "The protocol removes no gallery image."


def _find_queries(
    protocol: str, query: Positions, embeddings: Embeddings, paths: Sequence[str], valid: NDArray[np.bool_]
) -> Positions:
    names = embeddings.path or []
    places = {names[position]: place for place, position in enumerate(query.tolist()) if valid[place]}
    for path in paths:
        if path not in places:
            raise VIReIDError(
                f"'{clean(path)}' is no query of {protocol} with a true match in its gallery; give the path as the "
                f"embeddings hold it.{did_you_mean(path, places)}"
            )
    return np.array([places[path] for path in paths], dtype=np.int64)


def _describe(
    embeddings: Embeddings,
    position: int,
    names: Mapping[int, str],
    distance: float | None = None,
    is_true: bool | None = None,
) -> ListedImage:
    identity, camera = int(embeddings.identity[position]), int(embeddings.camera[position])
    path = embeddings.path[position] if embeddings.path else f"image {position}"
    return ListedImage(
        position,
        clean(path),
        clean(names.get(identity, identity)),
        str(camera) if camera >= 0 else "",
        _name_modality(int(embeddings.modality[position])),
        distance,
        is_true,
    )


def _name_modality(number: int) -> str:
    return MODALITIES[number] if 0 <= number < len(MODALITIES) else ""


def list_positions(groups: Sequence[RankListGroup]) -> Iterator[int]:
    """Yield the positions of all images of some lists, in the order in which they are shown, each once."""
    seen: set[int] = set()
    for group in groups:
        for item in group.lists:
            for image in (item.query, *item.images):
                if image.position not in seen:
                    seen.add(image.position)
                    yield image.position
