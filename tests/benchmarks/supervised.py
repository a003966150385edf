"""What the supervised methods and their parts are worth, from ImageNet weights, at one budget.

Baseline, AGW, DCLNet and MPANet with the same small network, EfficientNet-Lite0 from the extra ``small-weights``, the
same images, batches and number of steps. Each method has the learning rate, out of ``--rates``, at which its first seed
has the best mAP on the validation persons; test persons choose nothing. Then, at that rate, further seeds and the
method without each of its parts. Scores are of persons that training and choice have not seen (all-search, single-shot,
SYSU-MM01's protocol), in per cent, mean +- standard deviation over seeds of weights and batches. Every run keeps its
loss terms by epoch.

Where a part does not help, ``--reasons`` changes one circumstance at a time, the rate, the steps or the size of the
images, and runs the method with and without the part again.

Run: python tests/benchmarks/supervised.py [--output runs/supervised]    (all of it: about three hours of 1 core)
     python tests/benchmarks/supervised.py --minutes 60                  (goes on with what is missing for 60 minutes)
     python tests/benchmarks/supervised.py --reasons                     (after the first: about two hours of 1 core)
     python tests/benchmarks/supervised.py --table                       (writes docs/figures/supervised*.json)
     python tests/benchmarks/supervised.py --quick                       (a step of everything: does it run?)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import Runs, format_table, quiet, train_and_score, write_table

from vireid_lightning.data import CrossModalityDataModule, Synthetic
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.errors import VIReIDError
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
DENSE, NON_LOCAL = "DCLNet without dense loss", "AGW without non-local blocks"
AS_ABOVE = "as above"

#: Why a part does not help: a changed circumstance and the variants that are compared with the whole method in it.
REASONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    AS_ABOVE: ({}, (ALLEVIATION, PATTERNS, "MPANet without mutual mean", SLOW, DENSE, NON_LOCAL)),
    "rate 0.001": ({"rate": 1e-3}, (ALLEVIATION, PATTERNS, "MPANet without mutual mean")),
    "rate 0.004": ({"rate": 4e-3}, (ALLEVIATION, PATTERNS, SLOW)),
    "rate 0.008": ({"rate": 8e-3}, (PATTERNS, SLOW)),
    "360 steps": ({"steps": 360}, (ALLEVIATION, PATTERNS, DENSE, NON_LOCAL)),
    "192 x 64 pixels": ({"size": [192, 64]}, (PATTERNS, SLOW, DENSE, NON_LOCAL)),
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


class Design:
    """Which runs there are, in the order in which they are worth most.

    Args:
        runs: Where runs are kept.
        common: Settings that all runs share.
        rates: Learning rates, of which the validation persons choose each method's.
        seeds: Number of seeds.
        folder: Folder of images, caches and runs.
    """

    def __init__(self, runs: Runs, common: dict[str, Any], rates: list[float], seeds: int, folder: Path) -> None:
        if not rates or (len(rates) > 1 and common["val_identities"] < 2):
            raise VIReIDError(
                f"--rates are {rates} and --val-identities {common['val_identities']}; choosing between rates needs at "
                "least two validation persons, since test persons must choose nothing."
            )
        self.runs, self.common, self.rates, self.seeds, self.folder = runs, common, rates, seeds, folder

    def settings(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any]:
        return {"name": name, "difficulty": difficulty, "rate": rate, "seed": seed, **self.common, **changes}

    def run(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any] | None:
        settings = self.settings(name, difficulty, rate, seed, **changes)
        return self.runs.do(f"{name}-{difficulty}-{rate:g}-{seed}", settings, train, folder=self.folder)

    def find(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any] | None:
        settings = self.settings(name, difficulty, rate, seed, **changes)
        return self.runs.find(f"{name}-{difficulty}-{rate:g}-{seed}", settings)

    def rate(self, method: str, difficulty: float) -> float:
        """Return a method's best rate by the validation persons, among those whose first seed is finished."""
        found = {rate: self.find(method, difficulty, rate, 0) for rate in self.rates}
        scores = {rate: run["val/mAP"] for rate, run in found.items() if run is not None}
        return max(scores, key=lambda rate: scores[rate]) if scores else self.rates[0]

    def do(self, difficulties: list[float]) -> None:
        """Run what is missing."""
        for difficulty in difficulties:
            for rate in self.rates:
                for method in METHODS:
                    self.run(method, difficulty, rate, 0)
            for seed in range(1, self.seeds):
                for method in METHODS:
                    self.run(method, difficulty, self.rate(method, difficulty), seed)
            for seed in range(self.seeds):
                for name, (method, *_) in VARIANTS.items():
                    self.run(name, difficulty, self.rate(method, difficulty), seed)

    def do_reasons(self, difficulty: float, chosen: Sequence[str]) -> None:
        """Run what is missing of some reasons, all of a seed before the next seed."""
        for seed in range(self.seeds):
            for reason in chosen:
                changes, variants = REASONS[reason]
                for name in dict.fromkeys(each for variant in variants for each in (VARIANTS[variant][0], variant)):
                    rate = self.rate(VARIANTS.get(name, (name,))[0], difficulty)
                    self.run(name, difficulty, **{"rate": rate, "seed": seed, **changes})

    def reason_rows(self, difficulty: float) -> dict[str, list[list[float]]]:
        """Return Rank-1 and mAP of the whole method and of a variant, and how much more mAP this has, seed by seed."""
        rows = {}
        for variant in dict.fromkeys(variant for _, variants in REASONS.values() for variant in variants):
            rate = self.rate(method := VARIANTS[variant][0], difficulty)
            for reason, (changes, variants) in REASONS.items():
                if variant not in variants:
                    continue
                pairs = [
                    [
                        self.find(name, difficulty, **{"rate": rate, "seed": seed, **changes})
                        for name in (method, variant)
                    ]
                    for seed in range(self.seeds)
                ]
                if both := [(whole, without) for whole, without in pairs if whole and without]:
                    scores = [[run[score] for run in runs] for score in ("rank1", "mAP") for runs in zip(*both)]
                    rows[f"{variant}, {reason}"] = [*scores, [after - before for before, after in zip(*scores[2:])]]
        return rows

    def rows(self, difficulty: float) -> dict[str, list[list[float]]]:
        """Return Rank-1 and mAP of every seed that is finished, and the rate, by method and variant."""
        done = self.done(difficulty)
        return {name: [[run[score] for run in runs] for score in ("rank1", "mAP")] for name, runs in done.items()}

    def curves(self, difficulty: float) -> dict[str, dict[str, list[float]]]:
        """Return the mean over the seeds of every loss term, unweighted, epoch by epoch."""
        curves = {}
        for name, runs in self.done(difficulty).items():
            terms = [term for term in runs[0]["epochs"][0] if term.startswith("train/")]
            epochs = list(zip(*(run["epochs"] for run in runs)))
            curves[name] = {
                term.removeprefix("train/"): [round(statistics.mean(run[term] for run in same), 4) for same in epochs]
                for term in terms
            }
        return curves

    def done(self, difficulty: float) -> dict[str, list[dict[str, Any]]]:
        """Return the finished runs at each method's rate."""
        done = {}
        for name in (*METHODS, *VARIANTS):
            rate = self.rate(VARIANTS.get(name, (name,))[0], difficulty)
            found = [self.find(name, difficulty, rate, seed) for seed in range(self.seeds)]
            if kept := [run for run in found if run is not None]:
                done[name] = kept
        return done

    def rate_rows(self, difficulty: float) -> dict[str, list[list[float]]]:
        """Return the mAP of the validation persons at each rate."""
        found = {method: [self.find(method, difficulty, rate, 0) for rate in sorted(self.rates)] for method in METHODS}
        return {
            method: [[run["val/mAP"]] if run is not None else [] for run in runs]
            for method, runs in found.items()
            if any(runs)
        }


def main(words: list[str] | None = None) -> Design:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/supervised"))
    parser.add_argument("--difficulties", type=float, nargs="+", default=[0.0, 0.25])
    parser.add_argument("--rates", type=float, nargs="+", default=[3.5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--val-identities", type=int, default=30)
    parser.add_argument("--test-identities", type=int, default=80)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, nargs=2, default=[8, 2], help="identities, images of each modality")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 32], help="height and width of the images")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--reasons", nargs="*", choices=REASONS, help="run changed circumstances: these, or all")
    parser.add_argument("--table", action="store_true", help="write the tables of what is finished, and train nothing")
    parser.add_argument("--quick", action="store_true", help="a step of everything, to see that it runs")
    options = parser.parse_args(words)
    if options.quick:
        options.identities, options.val_identities, options.test_identities, options.steps = 8, 2, 2, 1
        options.seeds, options.rates, options.difficulties = 1, options.rates[:1], options.difficulties[:1]
    common = {
        name: getattr(options, name)
        for name in ("identities", "val_identities", "test_identities", "steps", "batch", "size")
    }
    design = Design(Runs(options.output, options.minutes), common, options.rates, options.seeds, options.output)
    if not options.table and options.reasons is None:
        design.do(options.difficulties)
    elif not options.table:
        for difficulty in options.difficulties:
            design.do_reasons(difficulty, options.reasons or list(REASONS))
    for difficulty in options.difficulties:
        if rows := design.rows(difficulty):
            about = {
                "command": f"python tests/benchmarks/supervised.py --difficulties {difficulty:g} --rates "
                + " ".join(f"{rate:g}" for rate in options.rates),
                "code": [
                    "tests/benchmarks/supervised.py",
                    *(f"vireid_lightning/{part}" for part in ("methods", "modules", "losses", "data", "metrics")),
                ],
                "settings": {
                    **common,
                    "difficulty": difficulty,
                    "rates": {method: design.rate(method, difficulty) for method in METHODS},
                },
                "folder": options.output / "tables" if options.quick else None,
            }
            about = {key: value for key, value in about.items() if value is not None}
            name = f"supervised-{difficulty:g}".replace(".", "_")
            curves = design.curves(difficulty)
            print(format_table(write_table(name, columns=["", "Rank-1", "mAP"], rows=rows, curves=curves, **about)))
            rates = [f"mAP at {rate:g}" for rate in sorted(options.rates)]
            table = write_table(f"{name}-rates", columns=["", *rates], rows=design.rate_rows(difficulty), **about)
            print(format_table(table))
        reasons = design.reason_rows(difficulty)
        if not all(row.endswith(AS_ABOVE) for row in reasons):
            about["command"] += " --reasons"
            columns = ["", "Rank-1 of the whole", "Rank-1", "mAP of the whole", "mAP", "mAP gained"]
            print(format_table(write_table(f"{name}-reasons", columns=columns, rows=reasons, **about)))
    return design


@pytest.mark.benchmark
def test_every_method_and_variant_is_scored(tmp_path):
    design = main(["--quick", "--output", str(tmp_path)])
    assert set(design.rows(0.0)) == {*METHODS, *VARIANTS}
    again = main(["--quick", "--output", str(tmp_path), "--reasons", "rate 0.001"])
    assert len(again.reason_rows(0.0)) == len(REASONS[AS_ABOVE][1]) + len(REASONS["rate 0.001"][1])


def test_rates_are_not_chosen_without_validation_persons(tmp_path):
    with pytest.raises(VIReIDError, match="validation persons"):
        main(["--rates", "1e-3", "1e-4", "--val-identities", "0", "--output", str(tmp_path)])


if __name__ == "__main__":
    main()
