"""A short summary of a run before its first step."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table


class RunSummary(Callback):
    """Prints, before the first step: the data's counts, the method, its size, the batch, the precision, the protocol.

    Args:
        console: Where to print; the terminal by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console

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
        console = self._console or Console()
        datamodule = trainer.datamodule
        if datamodule is None or not hasattr(datamodule, "summary"):
            return
        summary = datamodule.summary(stage)
        table = Table(title=f"{summary['dataset']} ({summary['root']})", title_justify="left")
        for heading in ("split", "identities", "visible images", "infrared images", "cameras"):
            table.add_column(heading, justify="left" if heading == "split" else "right")
        for split, counts in summary["splits"].items():
            cameras = ", ".join(map(str, counts["cameras"])) or "unknown"
            numbers = (f"{counts[key]:,}" for key in ("identities", "visible", "infrared"))
            table.add_row(split, *numbers, cameras)
        console.print(table)
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        trainable = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        console.print(f"Method     {type(pl_module).__name__}, {parameters:,} parameters, {trainable:,} trainable")
        if stage == "fit":
            identities, images = summary["identities_per_batch"], summary["images_per_modality"]
            total = 2 * identities * images * trainer.accumulate_grad_batches
            console.print(
                f"Batch      {identities} identities x ({images} visible + {images} infrared) over "
                f"{trainer.world_size} process(es), effective batch {total}, "
                f"batch normalisation over {2 * identities * images // trainer.world_size} images"
            )
            console.print(f"Schedule   {trainer.max_epochs} epochs x {summary['steps_per_epoch']} steps")
        console.print(f"Precision  {trainer.precision}")
        console.print(f"Protocol   {', '.join(summary['protocols'])}")
