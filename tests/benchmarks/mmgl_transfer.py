"""Does MMGL's pre-training help? One method, one budget, four starting points, fewer and fewer labels.

The baseline method is fine-tuned from random weights, from permutation recovery alone, from part-aware
cycle-contrastive learning (PCC) alone, and from both, with 100 %, 30 % and 10 % of the labelled identities. Three seeds
each: another seed has other weights, other batches, another pre-training and, below 100 %, other labelled identities,
the same for all four starting points. Pre-training sees all training images and no label. Scores are those of
identities that neither stage has seen (all-search, single-shot, SYSU-MM01's protocol), in per cent, mean +- standard
deviation over seeds. Permutation accuracy and part retrieval are measured on the images of the validation identities,
which are not trained on either.

Run: python tests/benchmarks/mmgl_transfer.py [--output results.json]     (at most 40 minutes on 2 cores)
     python tests/benchmarks/mmgl_transfer.py --quick                     (one seed, small budget: does it run?)
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.callbacks import RetrievalMetrics
from vireid_lightning.data import CrossModalityDataModule, Synthetic
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.methods import MMGL, Baseline, Optimization

#: Weights of permutation recovery and PCC. 36 makes of the mean squared error that of a whole 6 x 6 matrix.
STARTS: dict[str, dict[str, float] | None] = {
    "random": None,
    "permutation": {"permutation_weight": 36.0, "cycle_weight": 0.0},
    "PCC": {"permutation_weight": 0.0, "cycle_weight": 0.5},
    "both": {"permutation_weight": 36.0, "cycle_weight": 0.5},
}


@dataclass(frozen=True)
class Budget:
    """The budget of every starting point.

    Attributes:
        root: Folder of the synthetic images.
        backbone: Backbone of pre-training and fine-tuning.
        identities: Number of training identities.
        pretrain_epochs: Epochs of pre-training, each of 100 steps of 16 + 16 images.
        tune_epochs: Epochs of fine-tuning, each of 25 steps of 8 identities x (4 + 4) images.
        pretrain_lr: Learning rate of pre-training, with AdamW.
        pretrain_decay: Weight decay of pre-training.
        tune_lr: Learning rate of fine-tuning, with AdamW.
    """

    root: str = "synthetic"
    backbone: str = "test_resnet"
    identities: int = 200
    pretrain_epochs: int = 45
    tune_epochs: int = 16
    pretrain_lr: float = 4e-3
    pretrain_decay: float = 0.1
    tune_lr: float = 1e-3


class Labelled(Synthetic):
    """The synthetic dataset with a share of its training identities, drawn by ``draw``."""

    def __init__(self, root: str, *, share: float, draw: int, **settings: Any) -> None:
        super().__init__(root, **settings)
        everyone = super().identities("train")
        chosen = np.random.default_rng(draw).permutation(everyone)[: round(share * len(everyone))]
        self.chosen = frozenset(chosen.tolist())

    def identities(self, split):
        found = super().identities(split)
        return [identity for identity in found if identity in self.chosen] if split == "train" else found

    def samples(self, split):
        found = super().samples(split)
        return [sample for sample in found if sample.identity in self.chosen] if split == "train" else found


def datamodule(budget: Budget, share: float, seed: int, *, steps: int, images: int) -> CrossModalityDataModule:
    dataset = Labelled(
        budget.root,
        share=share,
        draw=seed,
        identities=budget.identities,
        val_identities=40,
        test_identities=60,
        images=4,
        image_size=(96, 48),
        interpolation="opencv-bilinear",  # the README's figures were made with it
    )
    augmentation = Augmentation(pad=3, pad_fill=0, erasing=0)
    return CrossModalityDataModule(
        dataset,
        identities_per_batch=8,
        images_per_modality=images,
        image_size=(96, 48),
        interpolation="opencv-bilinear",  # the README's figures were made with it
        visible_transforms=augmentation,
        infrared_transforms=augmentation,
        steps_per_epoch=steps,
        num_workers=0,
        cache_dir=str(Path(budget.root) / "cache"),
        seed=seed,
    )


def trainer(folder: Path, epochs: int, *callbacks: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def quiet() -> None:
    """One thread for each of the processes, and no advice from Lightning."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def pretrain(budget: Budget, start: str, seed: int, folder: str) -> dict[str, Any]:
    """Pre-train, keep the checkpoint, and return what was recovered of held-out images."""
    quiet()
    begin = time.perf_counter()
    seed_everything(seed, verbose=False)
    optimization = Optimization("adamw", budget.pretrain_lr, budget.pretrain_decay, schedule="cosine", warmup_epochs=1)
    model = MMGL(backbone=budget.backbone, optimization=optimization, **STARTS[start])
    data, run = datamodule(budget, 1.0, seed, steps=100, images=2), trainer(Path(folder), budget.pretrain_epochs)
    run.fit(model, datamodule=data)
    run.save_checkpoint(Path(folder) / f"{start}-{seed}.ckpt")
    losses = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("train/")}
    check = trainer(Path(folder), 1)
    check.limit_val_batches = 1.0
    (found,) = check.validate(model, datamodule=data, verbose=False)
    return {"start": start, "seed": seed, "seconds": time.perf_counter() - begin, **losses, **found}


def tune(budget: Budget, start: str, seed: int, share: float, folder: str) -> dict[str, Any]:
    """Fine-tune with labels of a share of the identities and score unseen ones."""
    quiet()
    begin = time.perf_counter()
    seed_everything(seed, verbose=False)
    data = datamodule(budget, share, seed, steps=25, images=4)
    source = None if STARTS[start] is None else str(Path(folder) / f"{start}-{seed}.ckpt")
    optimization = Optimization("adamw", budget.tune_lr, 1e-2, schedule="cosine", warmup_epochs=1)
    model = Baseline(
        num_classes=data.num_identities,
        backbone=budget.backbone,
        pretrained=False,
        optimization=optimization,
        init_from=source,
    )
    model.print = lambda *_: None
    place = Path(folder) / f"{start}-{seed}-{share}"
    run = trainer(place, budget.tune_epochs, RetrievalMetrics(console=Console(quiet=True)))
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    scores = {name: float(run.callback_metrics[f"test/{name}"]) for name in ("rank1", "mAP")}
    seconds = time.perf_counter() - begin
    return {"start": start, "seed": seed, "share": share, "seconds": seconds, **scores}


def spread(values: list[float], digits: int = 1) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} +- {deviation:.{digits}f}"


def format_tables(tuned: list[dict[str, Any]], pretrained: list[dict[str, Any]], shares: list[float]) -> str:
    """Return both tables in markdown."""
    lines = ["| start | " + " | ".join(f"Rank-1, {s:.0%} labels | mAP, {s:.0%} labels" for s in shares) + " |"]
    lines.append("|---|" + "---|" * 2 * len(shares))
    for start in STARTS:
        cells = [
            spread([run[score] for run in tuned if (run["start"], run["share"]) == (start, share)])
            for share in shares
            for score in ("rank1", "mAP")
        ]
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    measures = ["permutation_accuracy_visible", "permutation_accuracy_infrared", "stripe_match", "stripe_return"]
    lines += ["", "| pre-training | " + " | ".join(measures) + " | feature spread |", "|---|" + "---|" * 5]
    for start in list(STARTS)[1:]:
        runs = [run for run in pretrained if run["start"] == start]
        cells = [
            spread([100 * run[f"val/{name}"] for run in runs]) if f"val/{name}" in runs[0] else "-" for name in measures
        ]
        cells.append(spread([run["val/feature_spread"] for run in runs], 3))
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(budget: Budget, seeds: int, shares: list[float], processes: int, output: str | None) -> None:
    """Run everything, as many tasks at a time as there are processes, and print the tables."""
    begin = time.perf_counter()
    datamodule(budget, 1.0, 0, steps=1, images=1)  # draws the images before anyone needs them
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        starts = [start for start in STARTS if STARTS[start] is not None]
        jobs = [pool.submit(pretrain, budget, start, seed, folder) for seed in range(seeds) for start in starts]
        pretrained = [report(job) for job in jobs]
        jobs = [
            pool.submit(tune, budget, start, seed, share, folder)
            for share in shares
            for seed in range(seeds)
            for start in STARTS
        ]
        tuned = [report(job) for job in jobs]
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{budget}\n{seeds} seeds, {minutes:.1f} minutes with {processes} processes of one thread\n")
    print(format_tables(tuned, pretrained, shares))
    if output:
        results = {"budget": asdict(budget), "minutes": minutes, "pretrained": pretrained, "tuned": tuned}
        Path(output).write_text(json.dumps(results, indent=1), encoding="utf-8")


def report(job: Any) -> dict[str, Any]:
    result = job.result()
    shown = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items())
    print(", ".join(shown), flush=True)
    return result


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Budget()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.3, 0.1])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", help="file for every run's figures, JSON")
    parser.add_argument("--quick", action="store_true", help="one seed, 40 identities, a step of a budget")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    budget = Budget(**{name: getattr(options, name) for name in asdict(Budget())})
    if options.quick:
        small = {"identities": 40, "pretrain_epochs": 1, "tune_epochs": 1}
        budget, options.seeds, options.shares = Budget(**{**asdict(budget), **small}), 1, [1.0, 0.3]
    compare(budget, options.seeds, options.shares, options.processes, options.output)


@pytest.mark.benchmark
def test_tables_are_printed(tmp_path):
    main(["--quick", "--root", str(tmp_path)])


if __name__ == "__main__":
    main()
