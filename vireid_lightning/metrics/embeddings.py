"""Embeddings with what is known of their images: what the metrics score, from a model, a file or plain tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import read_arrays, write_arrays
from vireid_lightning.types import UNKNOWN, Sample

_CHECKED_AT_ONCE = 2**24  # values looked at per step when looking for NaN, so that a memory-mapped file stays on disk


class Embeddings:
    """N embeddings and the labels of their images.

    Args:
        embedding: (N, D) floating point tensor or array; a memory-mapped array is read in pieces. Scored in float32.
        identity: (N,) identity numbers, -1 unknown.
        camera: (N,) camera numbers, -1 unknown; None: all unknown.
        modality: (N,) 0 visible, 1 infrared; None where it does not matter.
        path: N paths relative to the dataset's root, or None.
        about: What is known of where they come from: dataset, trial, method, checkpoint and the like.
        origin: What error messages call the embeddings, such as the path of their file.

    Raises:
        VIReIDError: For shapes that do not fit together, or a value that is NaN or infinite in float32 (the first
            image is named).

    Example:
        >>> gallery = Embeddings(torch.eye(3), identity=[4, 5, 6], camera=[1, 1, 2])
        >>> len(gallery), gallery.size
        (3, 3)
    """

    def __init__(
        self,
        embedding: Tensor | NDArray[Any],
        identity: Tensor | NDArray[Any] | Sequence[int],
        camera: Tensor | NDArray[Any] | Sequence[int] | None = None,
        modality: Tensor | NDArray[Any] | Sequence[int] | None = None,
        path: Sequence[str] | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        origin: str = "the embeddings",
    ) -> None:
        if not isinstance(embedding, Tensor):
            embedding = np.asanyarray(embedding)
        self.embedding, self.origin, self.about = embedding, origin, dict(about or {})
        if embedding.ndim != 2 or 0 in embedding.shape:
            raise VIReIDError(
                f"{origin}: the array 'embedding' has shape {tuple(embedding.shape)}; give (images, values), one "
                "row for each image."
            )
        floating = (
            embedding.is_floating_point()
            if isinstance(embedding, Tensor)
            else embedding.dtype in (np.float16, np.float32, np.float64)
        )
        if not floating:
            raise VIReIDError(
                f"{origin}: the array 'embedding' holds {embedding.dtype}; give floating point values of 16, 32 or 64 "
                "bits."
            )
        unknown = torch.full((len(embedding),), UNKNOWN)
        self.identity = self._labels("identity", identity)
        self.camera = unknown if camera is None else self._labels("camera", camera)
        self.modality = unknown if modality is None else self._labels("modality", modality)
        self.path = None if path is None else [str(name) for name in path]
        if self.path is not None and len(self.path) != len(embedding):
            raise VIReIDError(f"{origin}: {len(self.path)} paths for {len(embedding)} embeddings; give one for each.")
        self._check_finite()

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def size(self) -> int:
        """Number of values of one embedding."""
        return int(self.embedding.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the embeddings are scored: where they lie, if there is float64."""
        if isinstance(self.embedding, Tensor) and self.embedding.device.type != "mps":
            return self.embedding.device
        return torch.device("cpu")

    def rows(self, index: Tensor, distance: str) -> Tensor:
        """Return float32 copies of some rows, L2-normalised where ``distance`` is cosine."""
        if isinstance(self.embedding, Tensor):
            values = self.embedding.index_select(0, index.to(self.embedding.device)).float().to(self.device)
        else:
            values = torch.from_numpy(np.ascontiguousarray(self.embedding[index.numpy()], dtype=np.float32))
        return functional.normalize(values, dim=1) if distance == "cosine" else values

    def samples(self) -> list[Sample]:
        """Return what a dataset builds its protocols from.

        Raises:
            VIReIDError: Where the paths are not known.
        """
        if self.path is None:
            raise VIReIDError(f"{self.origin}: the images' paths are not known, and the protocols are built from them.")
        labels = zip(self.path, self.identity.tolist(), self.modality.tolist(), self.camera.tolist())
        return [Sample(*label) for label in labels]

    def save(self, path: str | Path) -> None:
        """Write an .npz file with the arrays embedding, identity, camera, modality, path and about (a JSON text)."""
        rows = self.embedding.detach().float().cpu().numpy() if isinstance(self.embedding, Tensor) else self.embedding
        names = self.path if self.path is not None else [""] * len(self)
        arrays = {
            "embedding": rows,
            "identity": self.identity.numpy(),
            "camera": self.camera.numpy(),
            "modality": self.modality.numpy(),
            "path": np.array(names, dtype=np.str_),
            "about": np.array(json.dumps(self.about, default=str)),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what :meth:`save`, ``lightning predict`` or another program wrote.

        The embeddings stay in the file, memory-mapped, unless it is compressed.

        Raises:
            VIReIDError: Where the file is missing or no .npz, lacks an array (only ``about`` may be missing), or holds
                values that cannot be scored.
        """
        arrays = read_arrays(
            path, ("embedding", "identity", "camera", "modality", "path"), ("about",), mapped="embedding"
        )
        try:
            about = json.loads(str(arrays.pop("about", "{}")))
        except (ValueError, RecursionError) as error:
            raise VIReIDError(f"{path}: the array 'about' is no JSON text: {error}; leave it out.") from error
        if not isinstance(about, dict):
            raise VIReIDError(f"{path}: the array 'about' is no JSON object; leave it out.")
        if arrays["path"].ndim != 1:
            raise VIReIDError(f"{path}: the array 'path' has {arrays['path'].ndim} dimensions; give one path an image.")
        if arrays["path"].dtype.kind not in "US":
            raise VIReIDError(f"{path}: the array 'path' holds {arrays['path'].dtype}; give strings.")
        if arrays["path"].dtype.kind == "S":
            arrays["path"] = np.char.decode(arrays["path"], "utf-8", "replace")
        names = arrays.pop("path").reshape(-1).tolist()
        embeddings = cls(**arrays, path=names, about=about, origin=str(path))
        strange = [value for value in embeddings.modality.unique().tolist() if value not in (0, 1)]
        if strange:
            raise VIReIDError(f"{path}: the array 'modality' holds {strange[0]}; give 0 for visible, 1 for infrared.")
        return embeddings

    def _labels(self, name: str, values: Any) -> Tensor:
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biufc":
            raise VIReIDError(f"{self.origin}: the array '{name}' holds {values.dtype}; give whole numbers.")
        labels = torch.as_tensor(values).cpu()
        if labels.shape != (len(self.embedding),):
            raise VIReIDError(
                f"{self.origin}: the array '{name}' has shape {tuple(labels.shape)}, but there are "
                f"{len(self.embedding)} embeddings; give one {name} for each."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise VIReIDError(f"{self.origin}: the array '{name}' holds {labels.dtype}; give whole numbers.")
        return labels.long()

    def _check_finite(self) -> None:
        step = max(1, _CHECKED_AT_ONCE // self.size)
        bad: list[int] = []
        for start in range(0, len(self), step):
            part = self.embedding[start : start + step]
            values = (part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))).float()
            # One sum is quicker than a test of every value; it is not finite where any of them is not.
            if not bool(torch.isfinite(values.sum())):
                bad += (~torch.isfinite(values).all(dim=1)).nonzero().squeeze(1).add(start).tolist()
        if bad:
            names = [f"'{self.path[row]}'" if self.path is not None else f"row {row}" for row in bad[:3]]
            raise VIReIDError(
                f"{self.origin}: {len(bad)} of {len(self)} embeddings hold NaN or infinity, the first of them "
                f"{', '.join(names)}; look at the model's outputs (or its precision) for these images."
            )
