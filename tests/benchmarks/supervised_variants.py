"""Methods, parts and circumstances that tests/benchmarks/supervised.py compares, and one run of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.runs import quiet, train_and_score

from vireid_lightning.data import CrossModalityDataModule, Synthetic
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.methods import AGW, Baseline, DCLNet, MPANet, Optimization
from vireid_lightning.modules import BNNeck

METHODS = {"Baseline": Baseline, "AGW": AGW, "DCLNet": DCLNet, "MPANet": MPANet}


class MeanOnly(nn.Module):
    """Average pooling in the place of MPANet's patterns, with one mask that is 0 everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_features = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.float().mean((2, 3)), torch.zeros_like(x[:, :1]).float()


def without_alleviation(model: Any) -> None:
    model.backbone.after.clear()


def without_patterns(model: Any) -> None:
    from vireid_lightning.modules.modality_classifiers import ModalityClassifiers

    channels = model.backbone.channels[4]
    model.patterns, model.neck = MeanOnly(channels), BNNeck(channels)
    model.classifier = nn.Linear(channels, model.num_classes, bias=False)
    model.modality_classifiers = ModalityClassifiers(channels, model.num_classes)
    model.loss_weights = {**model.loss_weights, "separation": 0.0}


#: MPANet's classifiers see 7 times as many values as they do without patterns, so that Adam, which moves each weight by
#: about the rate, moves their logits up to 7 times as fast.
SLOW = "MPANet, a seventh of the rate for classifiers"

Variant = tuple[str, dict[str, Any], Callable[[Any], None] | None]

#: What is run beside the whole methods: name -> method, other arguments, and a change of the built module.
VARIANTS: dict[str, Variant] = {
    "MPANet without modality alleviation": ("MPANet", {}, without_alleviation),
    "MPANet without patterns": ("MPANet", {}, without_patterns),
    "MPANet without mutual mean": ("MPANet", {"mutual_weight": 0.0}, None),
    "MPANet without center cluster": ("MPANet", {"center_cluster_weight": 0.0}, None),
    SLOW: ("MPANet", {"lr_factors": {"classifier": 1 / 7, "modality_classifiers": 1 / 7}}, None),
    "DCLNet without dense loss": ("DCLNet", {"dense_weight": 0.0}, None),
    "DCLNet without part branch": (
        "DCLNet",
        {"dense_weight": 0.0, "part_weight": 0.0, "pixel_weight": 0.0, "continuity_weight": 0.0},
        None,
    ),
    "DCLNet with rectification": ("DCLNet", {"rectify": True}, None),
    "AGW without non-local blocks": ("AGW", {"non_local_blocks": (0, 0)}, None),
    "Baseline from random weights": ("Baseline", {"pretrained": False}, None),
}

PATTERNS, ALLEVIATION = "MPANet without patterns", "MPANet without modality alleviation"
MUTUAL = "MPANet without mutual mean"
DENSE, RECTIFIED = "DCLNet without dense loss", "DCLNet with rectification"
NON_LOCAL = "AGW without non-local blocks"
AS_ABOVE = "as above"

#: Why a part does not help: a changed circumstance and the variants that are compared with the whole method in it.
REASONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    AS_ABOVE: ({}, (ALLEVIATION, PATTERNS, MUTUAL, SLOW, DENSE, RECTIFIED, NON_LOCAL)),
    "rate 0.001": ({"rate": 1e-3}, (ALLEVIATION, PATTERNS, MUTUAL)),
    "rate 0.004": ({"rate": 4e-3}, (ALLEVIATION, PATTERNS, SLOW)),
    "rate 0.008": ({"rate": 8e-3}, (PATTERNS, SLOW)),
    "360 steps": ({"steps": 360}, (ALLEVIATION, PATTERNS, MUTUAL, DENSE, RECTIFIED, NON_LOCAL)),
    "192 x 64 pixels": ({"size": [192, 64]}, (ALLEVIATION, PATTERNS, MUTUAL, SLOW, DENSE, RECTIFIED, NON_LOCAL)),
    "likeness 1": ({"likeness": 1.0}, (ALLEVIATION, PATTERNS, MUTUAL, DENSE, RECTIFIED, NON_LOCAL)),
}


def train(
    *,
    name: str,
    difficulty: float,
    rate: float,
    seed: int,
    identities: int,
    val_identities: int,
    test_identities: int,
    steps: int,
    batch: tuple[int, int],
    size: tuple[int, int],
    folder: Path,
    likeness: float = 0.0,
) -> dict[str, Any]:
    """Train one method or variant and return its scores on validation and test persons, and its losses by epoch."""
    quiet()
    seed_everything(seed, verbose=False)
    method, given, change = VARIANTS.get(name, (name, {}, None))
    arguments = {key: value for key, value in given.items() if key != "lr_factors"}
    factors = given.get("lr_factors", {})
    dataset = Synthetic(
        folder / "images",
        identities=identities,
        val_identities=val_identities,
        test_identities=test_identities,
        images=3,
        difficulty=difficulty,
        likeness=likeness,
    )
    augmentation = Augmentation(pad=4, erasing=0)
    epochs = min(10, steps)
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=batch[0],
        images_per_modality=batch[1],
        image_size=size,
        visible_transforms=augmentation,
        infrared_transforms=augmentation,
        steps_per_epoch=steps // epochs,
        num_workers=0,
        cache_dir=str(folder / "cache"),
        seed=seed,
    )
    model = METHODS[method](
        num_classes=data.num_identities,
        backbone="tf_efficientnet_lite0",
        weights="small",
        optimization=Optimization("adam", rate, 5e-4, schedule="cosine", warmup_epochs=1, lr_factors=factors),
        **arguments,
    )
    if change is not None:
        change(model)
    return train_and_score(model, data, epochs=epochs, validate=True)
