"""The benchmarks' tables from their index files and paths alone: which images search which, trial by trial.

Every row is (query positions, galleries of all trials, rule of removal, what the CMC curve counts) in a list of images
(path, identity, modality, camera) that is made here too. Nothing of the library is used.
"""

from __future__ import annotations

import random

import numpy as np
from references.sysu_mm01 import official_galleries
from references.sysu_mm01 import test_images as sysu_images

BOTH = {"visible-to-infrared": 0, "infrared-to-visible": 1}


def sysu_mm01(root):
    identity, camera, number = sysu_images(root / "exp")
    images = [
        (f"cam{c}/{i:04d}/{n:04d}.jpg", i, int(c in (3, 6)), c)
        for i, c, n in zip(identity.tolist(), camera.tolist(), number.tolist())
    ]
    query = np.flatnonzero(np.isin(camera, (3, 6)))
    rows = {}
    for mode, cameras in (("all", (1, 2, 4, 5)), ("indoor", (1, 2))):
        for shot in ("single", "multi"):
            galleries = official_galleries(root / "exp", mode, shot)
            rows[f"{mode}/{shot}/official"] = (query, galleries, "sysu", "identity")
        rows[f"{mode}/single/seeded"] = (query, seeded(images, 0, cameras), "sysu", "identity")
    return images, rows


def regdb(root, trial):
    images = []
    for modality, word in enumerate(("visible", "thermal")):
        lines = (root / "idx" / f"test_{word}_{trial}.txt").read_text().split("\n")
        paths = [line.split()[0] for line in lines if line.strip()]
        images += [(path, int(path.split("/")[-2]), modality, 1 + modality) for path in paths]
    return images, all_against_all(images, "none", "image")


def llcm(identities, seed=0):
    """Images as many as in the dataset, over cameras at random: no index file lists them."""
    draw = np.random.default_rng(seed)
    images = []
    for modality, (folder, cameras, count) in enumerate(
        (("test_vis", (1, 2, 3, 4, 5, 6, 7, 8, 9), 8680), ("test_nir", (1, 2, 4, 5, 6, 7, 8, 9), 7166))
    ):
        person, camera = draw.choice(identities, count), draw.choice(cameras, count)
        for number, (i, c) in enumerate(zip(person.tolist(), camera.tolist())):
            images.append((f"{folder}/cam{c}/{i:04d}/{number:05d}.jpg", i, modality, c))
    query = {modality: np.array([k for k, image in enumerate(images) if image[2] == modality]) for modality in (0, 1)}
    cameras = {0: (1, 2, 3, 4, 5, 6, 7, 8, 9), 1: (1, 2, 4, 5, 6, 7, 8, 9)}
    rows = {
        name: (query[asked], seeded(images, 1 - asked, cameras[1 - asked]), "same-camera", "identity")
        for name, asked in BOTH.items()
    }
    return images, rows


def sysu_mm02(root):
    images = []
    for modality, name in enumerate(("test_rgb.txt", "test_ir.txt")):
        for line in (root / name).read_text().splitlines():
            path, identity, camera = line.split()
            images.append((path, int(identity), modality, int(camera)))
    return images, all_against_all(images, "none", "identity")


def all_against_all(images, removal, cmc):
    by_path = sorted(range(len(images)), key=lambda position: images[position][0])
    of = {m: np.array([position for position in by_path if images[position][2] == m]) for m in (0, 1)}
    return {name: (of[asked], [of[1 - asked]], removal, cmc) for name, asked in BOTH.items()}


def seeded(images, modality, cameras):
    """Ten galleries of random.seed(trial) and random.choice, one image of each identity and camera."""
    folders: dict[tuple[int, int], list[str]] = {}
    for path, identity, of, camera in images:
        if of == modality:
            folders.setdefault((identity, camera), []).append(path)
    position = {image[0]: number for number, image in enumerate(images)}
    state = random.getstate()
    galleries = []
    for trial in range(10):
        random.seed(trial)
        drawn = []
        for identity in sorted({identity for identity, _ in folders}):
            for camera in cameras:
                if (identity, camera) in folders:
                    drawn.append(position[random.choice(sorted(folders[identity, camera]))])
        galleries.append(np.array(drawn))
    random.setstate(state)
    return galleries
