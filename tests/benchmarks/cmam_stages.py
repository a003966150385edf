"""What each part of CMAM is worth, on synthetic pedestrians: scores after either stage, with and without its parts.

Stage 1 learns from visible images of a source in Market-1501's layout, stage 2 from an unlabelled target of other
people in SYSU-MM01's; the target's test people are searched. Printed: Rank-1 and mAP (all search, single shot; mean and
standard deviation over seeds of weights and batches) after stage 1, after stage 1 without its mutual terms, after
stage 2, after stage 2 without matching, and of the supervised Baseline that has the target's identities. The quality
of the pseudo labels over the epochs becomes a figure, clusters.svg (matplotlib, of the extra `plots`).

The networks start from random weights, whose clusters are not people (adjusted Rand index about 0.01), so stage 1
learns from the source's identities (``data.source.labels``). The target's are read by the Baseline alone.

Run: python tests/benchmarks/cmam_stages.py [--output runs/cmam_stages]     (at most 40 minutes on 2 cores)
     (stopped, it goes on with what is missing; finished runs lie in the folder)
     python tests/benchmarks/cmam_stages.py --quick                         (a few steps of everything: does it run?)
     python tests/benchmarks/cmam_stages.py --draw docs/cmam_clusters.json  (the figure alone, of a finished run)
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vireid_lightning.callbacks import RetrievalMetrics
from vireid_lightning.data import CrossModalityDataModule, Market1501, Source, Synthetic
from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.data.synthetic.layouts import plan_market1501
from vireid_lightning.methods import CMAM, Baseline, Optimization, SourceStage, TargetStage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is trained, in an order in which each finds what it starts from.
FIRST = ("stage 1", "stage 1 without mutual terms", "supervised Baseline")
SECOND = ("stage 2", "stage 2 without matching")

#: What the figure shows of the target's pseudo labels: logged name -> label of the line.
MEASURES = {
    "target/v_measure_visible": "v-measure, visible",
    "target/v_measure_infrared": "v-measure, infrared",
    "target/v_measure": "v-measure, both",
    "target/right_pairs": "correctly matched clusters",
}
#: Colours that stay apart in print and for colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


@dataclass(frozen=True)
class Settings:
    """One experiment's size; the steps are those of one pass or phase.

    The learning rates, weights, the scale and the memory's momentum are for a small network that starts from random
    weights: the authors' sums over a batch, their scale of 64 and momentum of 0.2 are for one that was trained before.
    """

    output: Path
    backbone: str = "test_resnet"
    image_size: tuple[int, int] = (64, 32)
    difficulty: float = 0.0
    source_people: int = 300
    target_people: int = 60
    test_people: int = 60
    images: int = 4
    source_steps: int = 1000
    target_steps: int = 600
    interval: int = 50
    baseline_steps: int = 1500
    target_lr: float = 3.5e-4
    lr: float = 2e-3
    momentum: float = 0.9
    scale: float = 16.0
    margin: float = 0.1
    kl_weight: float = 0.02
    similarity_weight: float = 0.02
    seed: int = 0


QUICK = {
    "source_people": 16,
    "target_people": 16,
    "test_people": 5,
    "images": 2,
    "source_steps": 2,
    "target_steps": 4,
    "interval": 2,
    "baseline_steps": 4,
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
        self.settings = settings
        # The images are the same whatever the seed of weights and batches.
        drawn = {"difficulty": settings.difficulty}
        plan = plan_market1501(train=settings.source_people, test=2, images_per_camera=settings.images)
        folder = settings.output / f"market1501-{settings.source_people}-{settings.images}-{settings.difficulty}"
        write_plan(plan, folder, workers=1, seed=1, **drawn)  # other cameras than the target's
        self.source = Market1501(folder)
        self.target = Synthetic(
            settings.output,
            identities=settings.target_people,
            test_identities=settings.test_people,
            val_identities=2,
            images=settings.images,
            **drawn,
        )

    def data(self, **arguments) -> CrossModalityDataModule:
        """The target's datamodule; ``source`` and the batch's size as a run needs them."""
        settings = self.settings
        return CrossModalityDataModule(
            self.target,
            image_size=settings.image_size,
            interpolation="opencv-bilinear",  # the README's figures were made with it
            num_workers=0,
            cache_dir=str(settings.output / "cache"),
            seed=settings.seed,
            eval_batch_size=256,
            **arguments,
        )

    @staticmethod
    def place(settings: Settings, name: str) -> Path:
        """Where a run's checkpoint lies."""
        return settings.output / f"{name.replace(' ', '_')}-{settings.seed}.ckpt"

    def path(self, name: str) -> Path:
        """Where a run of this experiment has its checkpoint."""
        return self.place(self.settings, name)

    def cmam(self, name: str) -> dict:
        """Train one stage and score it."""
        settings, mutual = self.settings, name != "stage 1 without mutual terms"
        source = SourceStage(
            steps=settings.source_steps,
            warmup_steps=settings.source_steps // 8,
            constant_steps=settings.source_steps * 6 // 10,
            scale=settings.scale,
            margin=settings.margin,
            kl_weights=(0.0, settings.kl_weight * mutual),
            similarity_weight=settings.similarity_weight * mutual,
        )
        target = TargetStage(
            dbscan_steps=0,
            kmeans_steps=settings.target_steps,
            warmup_steps=settings.target_steps // 8,
            lr=settings.target_lr,
            clusters=settings.target_people,
            momentum=settings.momentum,
            matching=name != "stage 2 without matching",
        )
        first = name in FIRST
        module = CMAM(
            source=source if first else None,
            target=None if first else target,
            backbone=settings.backbone,
            pretrained=False,
            optimization=Optimization(lr=settings.lr, schedule="constant"),
            init_from=None if first else str(self.path("stage 1")),
        )
        module.print = lambda *_: None
        data = self.data(
            identities_per_batch=16,
            images_per_modality=2,
            steps_per_epoch=settings.interval,
            source=Source(self.source, identities_per_batch=16, images_per_identity=4, labels=True) if first else None,
        )
        steps = 2 * settings.source_steps if first else settings.target_steps
        return self.run(name, module, data, epochs=steps // settings.interval)

    def baseline(self, name: str) -> dict:
        """Train the supervised Baseline on the target's identities."""
        settings, epochs = self.settings, 4
        module = Baseline(
            num_classes=settings.target_people,
            backbone=settings.backbone,
            pretrained=False,
            optimization=Optimization(lr=1e-3, schedule="cosine"),
        )
        data = self.data(
            identities_per_batch=8, images_per_modality=4, steps_per_epoch=settings.baseline_steps // epochs
        )
        return self.run(name, module, data, epochs=epochs)

    def run(self, name: str, module, data: CrossModalityDataModule, *, epochs: int) -> dict:
        """Train, keep, score."""
        history, start = History(), time.perf_counter()
        trainer = Trainer(
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
        trainer.fit(module, datamodule=data)
        trainer.save_checkpoint(self.path(name))
        seconds = time.perf_counter() - start
        trainer.test(module, datamodule=data, verbose=False)
        scores = {key: float(trainer.callback_metrics[f"test/{key}"]) for key in ("rank1", "mAP")}
        result = {"run": name, "seed": self.settings.seed, **scores, "seconds": seconds, "epochs": history.epochs}
        self.path(name).with_suffix(".json").write_text(json.dumps({"settings": repr(self.settings), **result}))
        return result


def run_once(settings: Settings, name: str) -> dict:
    """Do one run, in a process of its own with one thread, or read its result where a stopped experiment has it."""
    kept = Experiment.place(settings, name).with_suffix(".json")
    if kept.is_file() and (result := json.loads(kept.read_text())).pop("settings") == repr(settings):
        return result
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(settings.seed)
    experiment = Experiment(settings)
    return experiment.baseline(name) if name == "supervised Baseline" else experiment.cmam(name)


def main(settings: Settings, *, seeds: int, processes: int) -> list[dict]:
    """Run everything, as many runs at a time as there are processes; print and write what came out."""
    begun = time.perf_counter()
    settings.output.mkdir(parents=True, exist_ok=True)
    Experiment(settings)  # draws the images before anyone needs them
    done = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for names in (FIRST, SECOND):
            jobs = [
                pool.submit(run_once, replace(settings, seed=seed), name) for seed in range(seeds) for name in names
            ]
            for job in jobs:
                done.append(job.result())
                print("{run}, seed {seed}: Rank-1 {rank1:.2f}, mAP {mAP:.2f} ({seconds:.0f} s)".format(**done[-1]))
                sys.stdout.flush()
    minutes = (time.perf_counter() - begun) / 60
    print(f"\n{settings}\n{seeds} seeds, {minutes:.1f} minutes with {processes} processes of one thread\n")
    print(format_scores(done))
    draw_clusters(done, settings.output / "clusters.svg")
    content = {"settings": {**asdict(settings), "output": None}, "minutes": minutes, "runs": done}
    (settings.output / "stages.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return done


def format_scores(done: list[dict]) -> str:
    """Return the scores in markdown."""
    lines = ["| | Rank-1 | mAP |", "|---|---:|---:|"]
    for name in (*FIRST[:2], *SECOND, FIRST[2]):
        cells = []
        for score in ("rank1", "mAP"):
            values = [run[score] for run in done if run["run"] == name]
            deviation = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{deviation}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_clusters(done: list[dict], path: Path) -> Figure:
    """Draw the quality of the target's pseudo labels over the epochs of the first seed: dashed without matching."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, and a figure of the same values is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vireid-lightning"}):
        chart = Figure(figsize=(8, 4), layout="constrained")
        axes = chart.subplots()
        for run in done:
            if run["seed"] != 0 or run["run"] not in SECOND:
                continue
            matched = run["run"] == SECOND[0]
            for (name, label), colour in zip(MEASURES.items(), COLOURS, strict=True):
                points = [(epoch["epoch"], epoch[name]) for epoch in run["epochs"] if name in epoch]
                if points:
                    style = {"label": label} if matched else {"label": f"{label}, unmatched", "linestyle": "--"}
                    axes.plot(*zip(*points), color=colour, marker=".", **style)
        if not axes.lines:
            raise ValueError("The runs logged no quality of pseudo labels; give runs of stage 2.")
        axes.set(title="Pseudo labels of the target, stage 2", xlabel="epoch", ylim=(0, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        chart.legend(loc="outside right upper", frameon=False)
        chart.savefig(path, metadata={"Date": None})
    return chart


def test_the_figure_has_a_line_for_each_logged_measure(tmp_path):
    pytest.importorskip("matplotlib")
    epochs = [{"epoch": 0, "target/v_measure": 0.5}, {"epoch": 1, "target/v_measure": 0.75, "target/right_pairs": 0.25}]
    done = [
        {"run": "stage 2", "seed": 0, "epochs": epochs},
        {"run": "stage 2 without matching", "seed": 0, "epochs": epochs[:1]},
        {"run": "stage 2", "seed": 1, "epochs": epochs},
        {"run": "stage 1", "seed": 0, "epochs": epochs},
    ]
    (axes,) = draw_clusters(done, tmp_path / "first.svg").axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "v-measure, both": [[0, 0.5], [1, 0.75]],
        "correctly matched clusters": [[1, 0.25]],
        "v-measure, both, unmatched": [[0, 0.5]],
    }
    written = (tmp_path / "first.svg").read_text(encoding="utf-8")
    assert "v-measure, both, unmatched" in written
    draw_clusters(done, tmp_path / "second.svg")
    assert (tmp_path / "second.svg").read_text(encoding="utf-8") == written
    with pytest.raises(ValueError, match="logged no quality"):
        draw_clusters(done[2:], tmp_path / "third.svg")


@pytest.mark.benchmark
def test_every_stage_is_scored(tmp_path):
    done = main(Settings(output=tmp_path, **QUICK), seeds=1, processes=1)
    assert {run["run"] for run in done} == {*FIRST, *SECOND}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("runs/cmam_stages"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the figure of a stages.json, and train nothing")
    options = parser.parse_args()
    if options.draw:
        draw_clusters(json.loads(options.draw.read_text(encoding="utf-8"))["runs"], options.draw.with_suffix(".svg"))
    else:
        size = QUICK if options.quick else {}
        main(Settings(output=options.output, **size), seeds=options.seeds, processes=options.processes)
