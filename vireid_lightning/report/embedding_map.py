"""A map of embeddings in two dimensions, by t-SNE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vireid_lightning.metrics.distances import Positions
from vireid_lightning.metrics.embeddings import Embeddings

#: Identities on the map, and images of each of them in each modality, at most: more could not be told apart.
IDENTITIES, IMAGES = 20, 12

_PERPLEXITY = 20


@dataclass(frozen=True)
class EmbeddingMap:
    """Images as points of a plane, near each other where their embeddings are.

    Attributes:
        point: (N, 2) float64.
        position: (N,) int64, positions of the images in the embeddings.
        identity: (N,) int64.
        modality: (N,) int64, 0 visible, 1 infrared.
        perplexity: Number of neighbours that t-SNE kept near, about.
    """

    point: NDArray[np.float64]
    position: Positions
    identity: Positions
    modality: Positions
    perplexity: float


def draw_map(embeddings: Embeddings, used: Positions, distance: str, *, seed: int = 0) -> EmbeddingMap | None:
    """Return the map of some identities, drawn by a seed; None where there are fewer than 4 images of known identity.

    Args:
        embeddings: The images.
        used: Positions of those that the protocols use.
        distance: ``cosine`` (of normalised embeddings) or ``euclidean``.
        seed: Seed of the choice of identities and images, and of t-SNE.
    """
    from sklearn.manifold import TSNE  # takes a second to import
    from threadpoolctl import threadpool_limits

    chosen = choose_images(embeddings, used, seed)
    if len(chosen) < 4:
        return None
    rows = embeddings.rows(torch.from_numpy(chosen), distance).cpu().numpy()
    perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
    # Equal embeddings, as of a collapsed network, have no principal components to begin with.
    start = "pca" if np.ptp(rows, axis=0).max() > 0 and min(rows.shape) > 1 else "random"
    # One thread: for so few points several wait for each other, many times as long where a core is busy.
    with threadpool_limits(1):
        plane = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(rows)
    identity, modality = embeddings.identity.numpy()[chosen], embeddings.modality.numpy()[chosen]
    return EmbeddingMap(plane.astype(np.float64), chosen, identity, modality, perplexity)


def choose_images(embeddings: Embeddings, used: Positions, seed: int) -> Positions:
    """Return the positions of at most :data:`IMAGES` images of each modality of :data:`IDENTITIES` identities.

    Identities that were seen in both modalities come first.
    """
    generator = np.random.default_rng(seed)
    identity, modality = embeddings.identity.numpy()[used], embeddings.modality.numpy()[used]
    known = np.unique(identity[identity >= 0])
    both = np.intersect1d(identity[modality == 0], identity[modality == 1])
    order = generator.permutation(known)
    order = order[np.argsort(~np.isin(order, both), kind="stable")]
    parts = []
    for number in np.sort(order[:IDENTITIES]):
        for side in np.unique(modality):
            own = used[(identity == number) & (modality == side)]
            parts.append(np.sort(generator.permutation(own)[:IMAGES]))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
