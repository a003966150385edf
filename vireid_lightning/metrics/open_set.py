"""What a threshold on the distance decides about queries whose person may not be in the gallery."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.distances import DISTANCES
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.types import MODALITIES


def pick_threshold(other: NDArray[np.float64], rate: float) -> float | None:
    """Return the largest distance below which at most a share of the queries finds an image of somebody else.

    Args:
        other: (Q,) distance of each query to the nearest image of another person; infinity where there is none.
        rate: That share, between 0 and 1.

    Returns:
        The distance; None where the queries are too few to measure the share, which takes 1 / rate of them.

    Example:
        >>> pick_threshold(np.array([0.4, 0.1, 0.3, 0.2]), 0.25)
        0.2
    """
    queries = int(np.isfinite(other).sum())
    return None if queries * rate < 1 else float(np.sort(other)[math.floor(queries * rate)])


def count_errors(
    other: NDArray[np.float64], own: NDArray[np.float64], threshold: float
) -> tuple[float | None, float | None]:
    """Return a threshold's false positive rate and its miss rate; None where no query can tell.

    Args:
        other: (Q,) distance of each query to the nearest image of another person: without the query's person in the
            gallery, it is taken for found where it is below the threshold.
        own: (Q,) distance of each query to the nearest image of its person, which is missed where it is not below.
        threshold: The distance from which on an image is taken to show somebody else.
    """
    strangers, matched = np.isfinite(other), np.isfinite(own)
    false_positive = float((other[strangers] < threshold).mean()) if strangers.any() else None
    return false_positive, float((own[matched] >= threshold).mean()) if matched.any() else None


def read_thresholds(embeddings: Embeddings) -> Mapping[str, Any]:
    """Return the thresholds that embeddings were saved with, by the queries' modality; none where there are none.

    Raises:
        VIReIDError: If they are not as `vireid threshold` writes them.
    """
    found = embeddings.about.get("thresholds")
    if found is None:
        return {}
    advice = "; choose them again with `vireid threshold`."
    if not isinstance(found, Mapping):
        raise VIReIDError(f"{embeddings.origin}: 'about.thresholds' is no object{advice}")
    measured = {name: found[name] for name in MODALITIES if name in found}
    places: dict[str, Any] = {"stated_rate": found.get("stated_rate")} if measured else {}
    for name, values in measured.items():
        if not isinstance(values, Mapping):
            raise VIReIDError(f"{embeddings.origin}: 'about.thresholds.{name}' is no object{advice}")
        places[f"{name}.threshold"] = values.get("threshold")
    for name, value in places.items():
        # A gallery in which each query finds nobody has the threshold infinity.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise VIReIDError(f"{embeddings.origin}: 'about.thresholds.{name}' is no number{advice}")
        if not (0 < value < 1 if name == "stated_rate" else 0 <= value <= 1e300 or value == math.inf):
            raise VIReIDError(f"{embeddings.origin}: 'about.thresholds.{name}' is {value}, out of its range{advice}")
    if measured and found.get("distance") not in DISTANCES:
        raise VIReIDError(f"{embeddings.origin}: 'about.thresholds.distance' is no distance{advice}")
    return found
