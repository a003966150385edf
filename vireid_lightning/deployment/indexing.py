"""Approximate search in galleries of millions, by faiss, with a recall that is measured before the index is kept."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vireid_lightning.deployment.gallery import Gallery
from vireid_lightning.deployment.rank_lists import RankLists
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import read_arrays, write_arrays
from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.distances import distance_block
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.precision import exact_float32

#: Gallery images that faiss is asked for, for each that is wanted: their exact distances decide.
_CANDIDATES = 8
_MEASURED_K = 10
_MEASURED_QUERIES = 500
_TRAINED_PER_LIST = 64
_ADDED_AT_ONCE = 2**16


class GalleryIndex:
    """An inverted index over a gallery, whose candidates are then ranked by their exact distances.

    The gallery is cut into lists by k-means, its values are stored in 8 bits, and a query looks into as many lists as
    the stated recall asks for. The order and the distances are those of the exact search: only images of lists that
    are not looked into can be missed.

    Args:
        gallery: The gallery.
        index: faiss's index.
        about: What was measured: ``recall`` at 10, ``lists`` and ``probes``.
    """

    def __init__(self, gallery: Gallery, index: Any, about: dict[str, Any]) -> None:
        self.gallery, self.index, self.about = gallery, index, about

    @classmethod
    def build(cls, gallery: Gallery, *, recall: float = 0.99, sample: Embeddings | None = None) -> GalleryIndex:
        """Build an index that finds a stated share of the 10 nearest images.

        Args:
            gallery: The gallery.
            recall: Share of the images of the exact search's first 10 ranks that must be found, on average.
            sample: Queries on which that is measured, such as images of the other modality; None: gallery images.

        Raises:
            VIReIDError: faiss is not installed, or the recall is not above 0 and up to 1.
        """
        faiss = _import_faiss()
        if len(gallery) < len(gallery.embeddings):
            raise VIReIDError("An index is built of a whole gallery; embed the images to be searched by themselves.")
        check_number("The recall", recall, 0, 1, above=True)
        embeddings = gallery.embeddings
        lists = max(1, round(4 * len(gallery) ** 0.5))
        lists = min(lists, max(1, len(gallery) // _TRAINED_PER_LIST))
        metric = faiss.METRIC_INNER_PRODUCT if gallery.distance == "cosine" else faiss.METRIC_L2
        index = faiss.index_factory(embeddings.size, f"IVF{lists},SQ8", metric)
        index.train(_rows(gallery, _spread(len(gallery), lists * _TRAINED_PER_LIST)))
        for begin in range(0, len(gallery), _ADDED_AT_ONCE):
            index.add(_rows(gallery, np.arange(begin, min(begin + _ADDED_AT_ONCE, len(gallery)))))
        if sample is not None:
            gallery.require_fit(sample)
        asked = _choose(embeddings if sample is None else sample)
        exact = gallery.search(asked, _MEASURED_K)
        built = cls(gallery, index, {"lists": lists, "probes": 0, "recall": 0.0})
        probes = 1
        while True:
            index.nprobe = min(probes, lists)
            found = built.search(asked, _MEASURED_K).position
            shares = [len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(exact.position, found)]
            built.about |= {"probes": index.nprobe, "recall": float(np.mean(shares)), "queries": len(asked)}
            if built.about["recall"] >= recall or index.nprobe == lists:
                break
            probes *= 2
        if built.about["recall"] < recall:
            raise VIReIDError(
                f"An index of {embeddings.origin} that looks into every list finds {built.about['recall']:.4f} of the "
                f"exact search's images, less than {recall:g}; ask for less, or search without an index."
            )
        return built

    def search(self, query: Embeddings, k: int = 10) -> RankLists:
        """Return the nearest gallery images found for each query, by their exact distances.

        Raises:
            VIReIDError: The queries do not fit the gallery, or ``k`` is below 1.
        """
        self.gallery.require_fit(query)
        check_number("k", k, 1, whole=True)
        count = min(k, len(self.gallery))
        distance, embeddings = self.gallery.distance, self.gallery.embeddings
        wanted = min(count * _CANDIDATES, len(self.gallery))
        position = np.empty((len(query), count), dtype=np.int64)
        value = torch.empty(len(query), count)
        for row in range(len(query)):
            asked = query.rows(torch.tensor([row]), distance).cpu()
            _, candidates = self.index.search(asked.numpy(), wanted)
            listed = np.unique(candidates[0][candidates[0] >= 0])
            if len(listed) < count:  # the lists looked into hold too few
                found = self.gallery.search(_take(query, np.array([row])), count)
                listed = np.sort(found.position[0])
            with exact_float32(torch.device("cpu")):
                block = distance_block(asked, embeddings.rows(torch.from_numpy(listed), distance).cpu(), distance)[0]
            order = torch.argsort(block, stable=True)[:count]  # of equally near ones, the first in the gallery
            position[row], value[row] = listed[order.numpy()], block[order]
        return self.gallery.make_rank_lists(query, position, value)

    def save(self, path: str | Path) -> None:
        """Write the index and what was measured to an .npz file."""
        about = {**self.about, "gallery": _identify(self.gallery)}
        data = _import_faiss().serialize_index(self.index)
        write_arrays(path, {"index": data, "about": np.array(json.dumps(about))})

    @classmethod
    def load(cls, path: str | Path, gallery: Gallery) -> GalleryIndex:
        """Read an index of a gallery.

        Raises:
            VIReIDError: The file is no index, or one of another gallery.
        """
        faiss = _import_faiss()
        # Not mapped: the file's checksum is compared, without which faiss might follow a damaged length anywhere.
        arrays = read_arrays(path, ("index", "about"), mapped="")
        try:
            about = json.loads(str(arrays["about"]))
            index = faiss.deserialize_index(arrays["index"])
        except (ValueError, RuntimeError, TypeError, AssertionError) as error:
            said = " ".join(str(error).split())[:200]
            raise VIReIDError(f"{path} is no index that `vireid index` wrote: {said}.") from error
        if (
            not isinstance(about, dict)
            or len(gallery) < len(gallery.embeddings)
            or about.get("gallery") != _identify(gallery)
            or (index.d, index.ntotal) != (gallery.embeddings.size, len(gallery))
        ):
            raise VIReIDError(
                f"{path} is not an index of the images of {gallery.embeddings.origin} that are searched; build "
                "one of this gallery with `vireid index`."
            )
        check_number(f"{path}: 'about.probes'", probes := about.get("probes"), 1, 2**31 - 1, whole=True)
        index.nprobe = probes
        return cls(gallery, index, about)


def _import_faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise VIReIDError(
            "An index needs faiss, which is not installed: `pip install vireid-lightning[faiss]`."
        ) from error


def _identify(gallery: Gallery) -> dict[str, Any]:
    """Return what an index must agree with: the number of images, the weights, the distance, and some of the values."""
    embeddings = gallery.embeddings
    some = _rows(gallery, _spread(len(gallery), 64)).astype(np.float64)
    return {
        "images": len(gallery),
        "weights": embeddings.about.get("weights"),
        "distance": gallery.distance,
        "values": float(np.abs(some).sum().round(6)),
    }


def _rows(gallery: Gallery, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    rows = gallery.embeddings.rows(torch.from_numpy(positions), gallery.distance)
    return np.ascontiguousarray(rows.cpu().numpy())


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _take(embeddings: Embeddings, positions: NDArray[np.int64]) -> Embeddings:
    rows = torch.from_numpy(positions)
    return Embeddings(
        embeddings.rows(rows, "euclidean"),
        embeddings.identity[rows],
        embeddings.camera[rows],
        embeddings.modality[rows],
        about=embeddings.about,
        origin=embeddings.origin,
    )


def _choose(embeddings: Embeddings) -> Embeddings:
    return _take(embeddings, _spread(len(embeddings), _MEASURED_QUERIES))
