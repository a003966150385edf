"""SYSU-MM01's official galleries read from its rand_perm_cam.mat, image by image, and a stand-in for its embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat


def test_images(exp: Path):
    """Return (identity, camera, number) arrays of all test images, camera by camera."""
    table = loadmat(exp / "rand_perm_cam.mat")["rand_perm_cam"]
    identities = [int(part) for part in (exp / "test_id.txt").read_text().strip().split(",")]
    rows = []
    for camera in range(1, 7):
        for identity in identities:
            cell = table[camera - 1, 0]
            images = cell[identity - 1, 0].shape[-1] if identity <= len(cell) else 0
            rows += [(identity, camera, number) for number in range(1, images + 1)]
    return tuple(np.array(column) for column in zip(*rows))


def official_galleries(exp: Path, mode="all", shot="single"):
    """Return ten arrays of positions in :func:`test_images`."""
    table = loadmat(exp / "rand_perm_cam.mat")["rand_perm_cam"]
    identity, camera, number = test_images(exp)
    position = {key: row for row, key in enumerate(zip(identity.tolist(), camera.tolist(), number.tolist()))}
    galleries = [[] for _ in range(10)]
    for who in sorted(set(identity.tolist())):
        for where in (1, 2, 4, 5) if mode == "all" else (1, 2):
            cell = table[where - 1, 0][who - 1, 0]
            for trial in range(10 if cell.size else 0):
                for image in cell[trial, : 1 if shot == "single" else 10].tolist():
                    galleries[trial].append(position[who, where, image])
    return [np.array(gallery) for gallery in galleries]


def random_embeddings(identity, camera, size, spread, seed=0):
    """Return (N, size) float32: an identity's direction, a camera's shift and noise; ``spread`` scales the noise."""
    draw = np.random.default_rng(seed)
    people = draw.standard_normal((identity.max() + 1, size), dtype=np.float32)
    places = draw.standard_normal((camera.max() + 1, size), dtype=np.float32)
    noise = draw.standard_normal((len(identity), size), dtype=np.float32)
    return people[identity] + places[camera] + spread * noise
