"""A short summary of a run before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from vireid_lightning.callbacks.run_files import require_datamodule
from vireid_lightning.environment import find_code_state, list_versions
from vireid_lightning.methods.training_record import name_weights
from vireid_lightning.metrics.terminal import name_dataset, to_text
from vireid_lightning.modules.backbone import PerModality


class RunSummary(Callback):
    """Prints, once, before the first step, what a run is.

    That is the data's counts, the method and its size, the batch, the schedule, where the weights come from, the seed,
    the images' size, the precision, the protocols, the versions of packages, and the state of the user's code.

    Args:
        console: Where the summary is printed; null prints to the terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._printed = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary of a training run."""
        self._print(trainer, pl_module, "fit")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary of a validation that is not part of training."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary of a test."""
        self._print(trainer, pl_module, "test")

    @rank_zero_only
    def _print(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        datamodule = getattr(trainer, "datamodule", None)
        if self._printed or datamodule is None or not hasattr(datamodule, "summary"):
            return
        self._printed = True
        console = self._console or Console()
        summary = datamodule.summary()
        name = name_dataset(summary["dataset"], getattr(datamodule.dataset, "synthetic", False))
        title = to_text(f"{name} in {datamodule.dataset.root}", "table.title")
        table = Table(title=title, title_justify="left")
        table.add_column("split")
        for heading in ("identities", "visible images", "infrared images", "cameras"):
            table.add_column(heading, justify="right")
        for split, counts in summary["splits"].items():
            numbers = (counts[key] for key in ("identities", "visible", "infrared", "cameras"))
            table.add_row(to_text(split), *(f"{number:,}" for number in numbers))
        console.print(table)
        for name, text in _describe_run(trainer, pl_module, stage, summary):
            console.print(to_text(f"{name:<12}{text}"), soft_wrap=True)


def _describe_run(
    trainer: Trainer, pl_module: LightningModule, stage: str, summary: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield what a run's summary says below the table of its data."""
    parameters = list(pl_module.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    yield "Method", f"{type(pl_module).__name__}, {total:,} parameters, {trainable:,} of them trained"
    if stage == "fit" and "steps_per_epoch" in summary:
        identities, images = summary.get("identities_per_batch"), summary["images_per_modality"]
        size = 2 * (identities or 1) * images
        drawn = f"{images} visible + {images} infrared"
        drawn = f"{drawn} of any identity" if identities is None else f"{identities} identities x ({drawn})"
        yield "Batch", f"{drawn} = {size} images"
        yield "", _describe_shares(trainer, pl_module, size, identities)
        yield "Schedule", f"{trainer.max_epochs} epochs of {summary['steps_per_epoch']} steps"
        yield "Weights", _describe_first_weights(trainer, pl_module)
        yield "Seed", str(require_datamodule(trainer).training_data().seed)
    preprocessing = require_datamodule(trainer).preprocessing
    yield "Images", f"{' x '.join(map(str, preprocessing['image_size']))}, {preprocessing['interpolation']}"
    yield "Precision", str(trainer.precision)
    protocols = require_datamodule(trainer).protocols("test" if stage == "test" else "validate")
    yield ("Validation" if stage == "fit" else "Protocols"), ", ".join(protocol.name for protocol in protocols)
    yield "Versions", ", ".join(f"{name} {version}" for name, version in list_versions().items())
    if (code := find_code_state()) is not None:
        yield "Code", f"commit {str(code['commit'])[:12]}{' with changes' if code['dirty'] else ''}"


def _describe_shares(trainer: Trainer, pl_module: LightningModule, size: int, identities: int | None) -> str:
    """Say which images a process, a loss, a batch normalisation and an update of the weights see."""
    processes, update = trainer.world_size, size * trainer.accumulate_grad_batches
    own, normalised, parts = size // processes, size, []
    if processes > 1:
        of_identities = "" if identities is None else f" ({identities // processes} identities)"
        parts.append(f"{own} images{of_identities} on each of {processes} processes")
        gathers = getattr(pl_module, "gathers", False)
        parts.append(f"losses compare {f'all {size}' if gathers else f'the {own} of a process (gather: false)'}")
        normalised = size if getattr(pl_module, "synchronises_normalisation", False) else own
    streams = any(isinstance(module, PerModality) for module in pl_module.modules())
    in_streams = f" ({normalised // 2} in layers of one modality)" if streams else ""
    how = "" if normalised == size else "; all of them with trainer.sync_batchnorm"
    passes = -(-own // (getattr(getattr(pl_module, "optimization", None), "images_per_pass", None) or own))
    if passes > 1:
        parts.append(f"{passes} passes through the backbone, each of which normalises on its own")
        normalised //= passes
        in_streams = f" ({normalised // 2} in layers of one modality)" if streams else ""
    parts.append(f"batch normalisation over {normalised}{in_streams}{how}")
    parts.append(f"{update} images in an update of the weights")
    return "; ".join(parts)


def _describe_first_weights(trainer: Trainer, pl_module: LightningModule) -> str:
    if trainer.ckpt_path is not None:
        return f"go on from {trainer.ckpt_path}"
    return name_weights(pl_module.hparams) or "not known"
