"""A small report: images of few identities in two directions, with names that try to break out of a page."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from vireid_lightning.metrics import Embeddings, Protocol, ScoreTable, Trial, score_protocols
from vireid_lightning.report import collect

IDENTITIES, IMAGES = 6, 5

#: Parts of names that a page, an attribute, a script, a formula or a terminal would take for its own.
HOSTILE = (
    "<script>window.broken=1</script>",
    '"><img src=x onerror=window.broken=1>',
    "' onmouseover='window.broken=1",
    "</script><script>window.broken=1</script>",
    "{{ 6217 * 104729 }} $\\frac{1}{0}$ _under",
    "\x1b[31m\u202egpj\n\x07",
)


def make_embeddings(*, hostile=False):
    """Return embeddings of visible and infrared images, which are near their identity's centre."""
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(IDENTITIES), 2 * IMAGES)
    modality = np.tile(np.repeat([0, 1], IMAGES), IDENTITIES)
    centres = generator.standard_normal((IDENTITIES, 8))
    rows = centres[identity] + 1.2 * generator.standard_normal((len(identity), 8)) + 0.8 * modality[:, None]
    part = [f"{HOSTILE[number % len(HOSTILE)]}" if hostile else f"{number:04d}" for number in identity]
    camera = np.where(modality == 0, 1, 3) + np.arange(len(identity)) % 2 * np.where(modality == 0, 1, 3)
    path = [f"cam{number}/{name}/{place}.png" for place, (number, name) in enumerate(zip(camera, part))]
    return Embeddings(torch.from_numpy(rows.astype(np.float32)), identity, camera, modality, path)


def make_protocols(embeddings):
    """Return both directions, two trials of the first, which removes images."""
    visible, infrared = (np.flatnonzero(embeddings.modality.numpy() == side) for side in (0, 1))
    return [
        Protocol("infrared-to-visible", (Trial(infrared, visible), Trial(infrared, visible[3:])), "sysu"),
        Protocol("visible-to-infrared", (Trial(visible, infrared),)),
    ]


def write_images(root, embeddings):
    """Write an image for each path that can be a file's name."""
    generator = np.random.default_rng(1)
    for path in embeddings.path:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), generator.integers(0, 256, (48, 24, 3), dtype=np.uint8))


def write_curves(path):
    """Write what a CSVLogger writes of three epochs, cut short in its last line."""
    lines = ["epoch,step,lr-Adam,step/identity,train/identity,train/loss,val/mAP,val/rank1"]
    for epoch in range(3):
        step = 10 * (epoch + 1) - 1
        lines.append(f",{step},{0.001 / (epoch + 1)},,,,,")
        lines.append(f"{epoch},{step},,{2.5 - epoch},,,,")
        lines.append(f"{epoch},{step},,,{2 / (epoch + 1)},{3 / (epoch + 1)},{20 + epoch},{30 + epoch}")
    path.write_text("\n".join([*lines, "3,39,nan,x"]))


def make_content(root=None, *, hostile=False, lists=100, queries=(), curves=None, thresholds=None):
    """Return the content of a report; ``thresholds`` are those stored with the embeddings."""
    embeddings = make_embeddings(hostile=hostile)
    if thresholds is not None:
        embeddings.about["thresholds"] = thresholds
    rows = score_protocols(embeddings, embeddings, make_protocols(embeddings))
    about = {"dataset": HOSTILE[0] if hostile else "Fake", "method": "Method", "epoch": 3, "image_size": [48, 24]}
    names = dict(enumerate(HOSTILE)) if hostile else {}
    return collect(
        embeddings, ScoreTable(rows, about), default="infrared-to-visible", root=root, names=names,
        training=curves, lists=lists, queries=queries,
    )  # fmt: skip
