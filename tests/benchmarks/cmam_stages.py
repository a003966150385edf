"""What each part of CMAM is worth, on synthetic pedestrians: scores after either stage, with and without its parts.

Stage 1 learns from visible images of a source in Market-1501's layout, stage 2 from an unlabelled target of other
people in SYSU-MM01's; the target's test people are searched. Printed: Rank-1 and mAP (all search, single shot) after
stage 1, after stage 1 without its mutual terms, after stage 2, after stage 2 without matching, and of the supervised
Baseline, the ceiling. The quality of the pseudo labels over the epochs becomes a figure, clusters.svg.

The networks start from random weights, whose clusters are not people (adjusted Rand index about 0.01), so stage 1
learns from the source's identities (``source_labels: true``). The target's are never read, but by the Baseline.

Run by hand: python tests/benchmarks/cmam_stages.py [--quick] [--output runs/cmam_stages] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightning.pytorch import Callback

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Settings:
    """One experiment's size; the steps are those of one pass or phase."""

    output: Path
    threads: int = 2
    backbone: str = "resnet10t"
    image_size: tuple[int, int] = (64, 32)
    difficulty: float = 0.25
    source_people: int = 150
    target_people: int = 100
    images: int = 4
    source_steps: int = 300
    target_steps: int = 400
    interval: int = 50
    baseline_steps: int = 600
    source_clusters: int = 150
    target_clusters: int = 100
    target_lr: float = 3.5e-4
    lr: float = 2e-3
    scale: float = 16.0
    margin: float = 0.1
    kl_weight: float = 0.02
    similarity_weight: float = 0.02
    seed: int = 0
    source_labels: bool = True


QUICK = {
    "source_people": 12,
    "target_people": 10,
    "images": 2,
    "source_steps": 2,
    "target_steps": 2,
    "interval": 2,
    "baseline_steps": 2,
    "source_clusters": 12,
    "target_clusters": 8,
    "backbone": "test_resnet",
}


class History(Callback):
    """Keeps what each epoch logged."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        self.epochs.append({"epoch": trainer.current_epoch, **logged})


class Experiment:
    """Runs of one set of images; every score is that of the target's test people."""

    def __init__(self, settings: Settings) -> None:
        from vireid_lightning.data import Market1501, Synthetic
        from vireid_lightning.data.layouts import plan_market1501
        from vireid_lightning.data.synthetic import write_plan

        self.settings = settings
        drawn = {"seed": settings.seed, "difficulty": settings.difficulty}
        plan = plan_market1501(train=settings.source_people, test=2, images_per_camera=settings.images)
        folder = settings.output / f"market1501-{settings.source_people}-{settings.images}-{settings.difficulty}"
        write_plan(plan, folder, workers=1, **drawn)
        self.source = Market1501(folder)
        self.target = Synthetic(
            settings.output,
            identities=settings.target_people,
            test_identities=30,
            val_identities=2,
            images=settings.images,
            **drawn,
        )
        self.histories: dict[str, list[dict[str, float]]] = {}
        self.results: dict[str, dict[str, float]] = {}

    def data(self, **arguments):
        """The target's datamodule; ``source`` and the batch's size as a run needs them."""
        from vireid_lightning.data import CrossModalityDataModule

        settings = self.settings
        return CrossModalityDataModule(
            self.target,
            image_size=settings.image_size,
            num_workers=0,
            cache_dir=str(settings.output / "cache"),
            seed=settings.seed,
            eval_batch_size=256,
            **arguments,
        )

    def trainer(self, epochs: int, history):
        """A quiet trainer in bfloat16 that scores at the end."""
        from lightning.pytorch import Trainer
        from rich.console import Console

        from vireid_lightning.callbacks import RetrievalMetrics

        return Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            default_root_dir=self.settings.output,
            callbacks=[RetrievalMetrics(console=Console(quiet=True)), history],
        )

    def cmam(self, name: str, *, source=None, target=None, init_from: Path | None = None) -> Path:
        """Train one stage, score it, and return its checkpoint."""
        import torch

        from vireid_lightning.data import Source
        from vireid_lightning.methods import CMAM, Optimization

        settings = self.settings
        torch.manual_seed(settings.seed)
        module = CMAM(
            source=source,
            target=target,
            source_labels=settings.source_labels,
            backbone=settings.backbone,
            pretrained=False,
            optimization=Optimization(lr=settings.lr, schedule="constant"),
            init_from=None if init_from is None else str(init_from),
        )
        data = self.data(
            identities_per_batch=4,
            images_per_modality=8,
            steps_per_epoch=settings.interval,
            source=None if source is None else Source(self.source, identities_per_batch=16, images_per_identity=4),
        )
        steps = 2 * settings.source_steps if source else target.dbscan_steps + target.kmeans_steps
        return self.run(name, module, data, epochs=steps // settings.interval)

    def baseline(self, name: str) -> Path:
        """Train the supervised Baseline on the target's identities."""
        import torch

        from vireid_lightning.methods import Baseline, Optimization

        settings = self.settings
        torch.manual_seed(settings.seed)
        epochs = 4
        module = Baseline(
            num_classes=settings.target_people,
            backbone=settings.backbone,
            pretrained=False,
            optimization=Optimization(lr=1e-3, schedule="cosine"),
        )
        data = self.data(
            identities_per_batch=8, images_per_modality=4, steps_per_epoch=max(1, settings.baseline_steps // epochs)
        )
        return self.run(name, module, data, epochs=epochs)

    def run(self, name: str, module, data, *, epochs: int) -> Path:
        """Train, score, keep."""
        history = History()
        path = self.settings.output / f"{name.replace(' ', '_')}.ckpt"
        start = time.perf_counter()
        trainer = self.trainer(epochs, history)
        trainer.fit(module, datamodule=data)
        trainer.save_checkpoint(path)
        seconds = time.perf_counter() - start
        trainer.test(module, datamodule=data, verbose=False)
        scores = {key: float(trainer.callback_metrics[f"test/{key}"]) for key in ("rank1", "mAP")}
        self.results[name] = {**scores, "seconds": seconds}
        self.histories[name] = history.epochs
        print(f"{name}: Rank-1 {scores['rank1']:.2f}, mAP {scores['mAP']:.2f} ({seconds:.0f} s)", flush=True)
        return path


def main(settings: Settings) -> dict[str, dict[str, float]]:
    """Run everything; return the scores."""
    import torch

    from vireid_lightning.methods import SourceStage, TargetStage

    torch.set_num_threads(settings.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings.output.mkdir(parents=True, exist_ok=True)
    experiment, begun = Experiment(settings), time.perf_counter()
    source = {
        "steps": settings.source_steps,
        "warmup_steps": settings.source_steps // 8,
        "constant_steps": settings.source_steps * 6 // 10,
        "clustering": "kmeans",
        "clusters": settings.source_clusters,
        "scale": settings.scale,
        "margin": settings.margin,
    }
    target = {
        "dbscan_steps": 0,
        "kmeans_steps": settings.target_steps,
        "warmup_steps": settings.target_steps // 8,
        "lr": settings.target_lr,
        "clusters": settings.target_clusters,
    }
    mutual = {"kl_weights": (0.0, settings.kl_weight), "similarity_weight": settings.similarity_weight}
    first = experiment.cmam("stage 1", source=SourceStage(**source, **mutual))
    alone = {"kl_weights": (0.0, 0.0), "similarity_weight": 0.0}
    experiment.cmam("stage 1 without mutual terms", source=SourceStage(**source, **alone))
    experiment.cmam("stage 2", target=TargetStage(**target), init_from=first)
    experiment.cmam("stage 2 without matching", target=TargetStage(**target, matching=False), init_from=first)
    experiment.baseline("supervised Baseline")
    report(experiment)
    print(f"Everything took {(time.perf_counter() - begun) / 60:.1f} minutes; see {settings.output}")
    return experiment.results


def report(experiment: Experiment) -> None:
    """Write scores, histories and the figure."""
    from vireid_lightning.tools.line_chart import LineChart

    measures = ("v_measure_visible", "v_measure_infrared", "v_measure", "right_pairs")
    lines = {}
    for run in ("stage 2", "stage 2 without matching"):
        for measure in measures:
            points = [
                (e["epoch"], e[f"target/{measure}"]) for e in experiment.histories[run] if f"target/{measure}" in e
            ]
            if points:
                lines[measure if run == "stage 2" else f"{measure}, unmatched"] = points
    chart = LineChart("Pseudo labels of the target, stage 2", lines, y_range=(0.0, 1.0))
    chart.save(experiment.settings.output / "clusters.svg")
    settings = experiment.settings
    content = {"settings": {k: str(v) for k, v in vars(settings).items()}, "scores": experiment.results}
    (settings.output / "results.json").write_text(json.dumps({**content, "epochs": experiment.histories}, indent=1))


@pytest.mark.benchmark
def test_every_stage_is_scored(tmp_path):
    assert set(main(Settings(output=tmp_path, threads=1, **QUICK))) >= {"stage 1", "stage 2", "supervised Baseline"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("runs/cmam_stages"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(Settings(output=options.output, threads=options.threads, **(QUICK if options.quick else {})))
