"""The same weights scored on images that Pillow reads and resizes, and on ours: what the authors' code would print.

Pedestrians of 600 x 240 pixels are drawn in SYSU-MM01's layout as JPEG files. A small network is trained for a minute,
then embeds the test images at 192 x 64 three times for each filter: read and resized by Pillow as the papers' code does
it, by this package, and by OpenCV's kernel of that name, which this package used before. Rank-1 and mAP in per cent.

Run: python tests/benchmarks/pillow_scores.py [--steps 120] [--identities 40]     (10 minutes on one core)
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.data import SYSUMM01, CrossModalityDataModule
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.data.images.torch_datasets import EvaluationImages
from vireid_lightning.data.loading import normalize
from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01
from vireid_lightning.methods import Baseline, Optimization
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.scoring import score_protocols

FILTERS = ("bilinear", "bicubic", "lanczos")


class PillowFiles:
    """Images by position, as the authors' code makes them; width first, as in every Pillow of that time."""

    def __init__(self, root, paths, image_size, interpolation):
        self.root, self.paths = root, paths
        self.height, self.width = image_size
        self.filter = Image.Resampling[interpolation.upper()]

    def __getitem__(self, position):
        with Image.open(self.root / self.paths[position]) as file:
            image = file.convert("RGB")
        narrowed = image.resize((self.width, image.height), self.filter)
        return np.array(narrowed.resize((self.width, self.height), self.filter))


@torch.no_grad()
def score(module, dataset, images) -> dict[str, tuple[float, float]]:
    """Return Rank-1 and mAP of each protocol of the test split."""
    samples = dataset.samples("test")
    rows = []
    for batch in DataLoader(EvaluationImages(samples, images), batch_size=64):
        rows.append(module.embed(normalize(batch["image"]), batch["modality"]))
    embeddings = Embeddings(torch.cat(rows).numpy(), [s.identity for s in samples], [s.camera for s in samples])
    table = score_protocols(embeddings, embeddings, dataset.protocols(samples, "test"), distance=dataset.distance)
    return {row.name: (row.rank1, row.mAP) for row in table}


def train(dataset, image_size, steps: int):
    """Return a network that has learned enough for its ranking to mean something."""
    seed_everything(0, verbose=False)
    optimization = Optimization("adamw", lr=1e-3, weight_decay=5e-4, schedule="constant")
    augmentation = Augmentation(pad=4, erasing=0)
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=8,
        images_per_modality=2,
        image_size=image_size,
        visible_transforms=augmentation,
        infrared_transforms=augmentation,
        steps_per_epoch=steps,
        num_workers=0,
    )
    module = Baseline(
        num_classes=data.num_identities, backbone="resnet10t", pretrained=False, optimization=optimization
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, limit_val_batches=0, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(module, datamodule=data)
    return module.eval()


def main(words: list[str] | None = None) -> dict[str, float]:
    """Print all scores; return the largest difference between ours and Pillow's for each filter, in points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=40, help="of training, and of the test")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 64), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args(words)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    size, worst = tuple(arguments.size), {}
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_sysu_mm01(arguments.identities, 1, arguments.identities, images_per_camera=4)
        write_plan(plan, folder, difficulty=0.3, image_size=(600, 240), workers=1)
        dataset = SYSUMM01(folder)
        module = train(dataset, size, arguments.steps)
        paths = [sample.path for sample in dataset.samples("test")]
        for name in FILTERS:
            found = {
                "Pillow": score(module, dataset, PillowFiles(dataset.root, paths, size, name)),
                "ours": score(module, dataset, ImageFiles(dataset.root, paths, size, name)),
                "OpenCV": score(module, dataset, ImageFiles(dataset.root, paths, size, f"opencv-{name}")),
            }
            print(f"\n{name}, {len(paths)} images of 600 x 240 at {size[0]} x {size[1]}: Rank-1 / mAP")
            print("".join(f"{heading:>18}" for heading in ("", *found)))
            for row in found["Pillow"]:
                cells = (f"{scores[row][0]:.3f} / {scores[row][1]:.3f}" for scores in found.values())
                print(f"{row:18}" + "".join(f"{cell:>18}" for cell in cells))
            pairs = zip(found["ours"].values(), found["Pillow"].values())
            worst[name] = max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs))
            print(f"largest difference between ours and Pillow's: {worst[name]:.4f} points")
    return worst


@pytest.mark.benchmark
def test_the_scores_are_those_of_pillow():
    assert max(main([]).values()) < 0.01


if __name__ == "__main__":
    main()
