"""Search settings of the Baseline with Optuna, on the quickstart's synthetic pedestrians; `pip install optuna`.

    python experiments/optuna_baseline.py --trials 20

The scores compared are those of the validation identities; no trial looks at the test images. Trials that fall behind
the median are stopped. The study is kept in a file: run again, it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from vireid_lightning import CrossModalityDataModule, RetrievalMetrics
from vireid_lightning.data import Augmentation, Synthetic
from vireid_lightning.methods import Baseline, Optimization


class StopWhatFallsBehind(Callback):
    """Reports each validation's mAP to a trial, and stops it where Optuna's pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: Trainer, pl_module: object) -> None:
        """Report the score of an epoch."""
        if not trainer.sanity_checking:
            self.trial.report(trainer.callback_metrics["val/mAP"].item(), trainer.current_epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned


def main() -> None:
    """Run some trials of the study and print the best of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="number of settings to try")
    parser.add_argument("--epochs", type=int, default=9, help="number of epochs of a trial")
    parser.add_argument("--steps", type=int, default=50, help="number of steps of an epoch")
    parser.add_argument("--backbone", default="resnet10t", help="name of a timm CNN with four stages")
    parser.add_argument("--output", type=Path, default=Path("runs/optuna_baseline"), help="folder of the study")
    given = parser.parse_args()

    dataset = Synthetic(identities=160, test_identities=64, difficulty=0.1)
    light = Augmentation(pad=4, erasing=0)

    def score(trial: optuna.Trial) -> float:
        seed_everything(0, verbose=False)
        model = Baseline(
            num_classes=len(dataset.identities("train")),
            backbone=given.backbone,
            pretrained=False,
            margin=trial.suggest_float("margin", 0.1, 0.6),
            triplet_weight=trial.suggest_categorical("triplet_weight", [0.5, 1.0, 2.0]),
            optimization=Optimization(
                lr=trial.suggest_float("optimization.lr", 1e-4, 1e-2, log=True),
                weight_decay=trial.suggest_float("optimization.weight_decay", 1e-5, 1e-2, log=True),
                schedule="cosine",
                warmup_epochs=1,
            ),
        )
        data = CrossModalityDataModule(
            dataset,
            identities_per_batch=8,
            steps_per_epoch=given.steps,
            image_size=(96, 48),
            visible_transforms=light,
            infrared_transforms=light,
            num_workers=0,
        )
        trainer = Trainer(
            max_epochs=given.epochs,
            callbacks=[RetrievalMetrics(), StopWhatFallsBehind(trial)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
        return float(trainer.callback_metrics["val/mAP"])

    given.output.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(given.output / "study.log")))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    study = optuna.create_study(
        storage=storage, pruner=pruner, study_name="baseline", direction="maximize", load_if_exists=True
    )
    # Another seed for each start: a study that goes on must not try the same settings again.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    study.optimize(score, n_trials=given.trials)
    print(f"Best of {len(study.trials)} trials: mAP {study.best_value:.2f} on the validation identities.")
    print(" ".join(f"--model.init_args.{name} {value}" for name, value in study.best_params.items()))


if __name__ == "__main__":
    main()
