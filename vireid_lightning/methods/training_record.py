"""What a checkpoint says of the training that made its weights, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vireid_lightning.environment import find_code_state, find_job, list_versions
from vireid_lightning.modules.weights_files import name_origin


def describe_training(
    trainer: Any,
    checkpoint: Mapping[str, Any],
    datamodule: Any,
    *,
    batches: str,
    seed: int | None,
    weights: str | None,
    length: Mapping[str, int | None],
) -> dict[str, Any]:
    """Return the record of a training run for a checkpoint that is being written.

    Args:
        trainer: The trainer that trains.
        checkpoint: What Lightning has put into the checkpoint: epochs and steps.
        datamodule: The run's data.
        batches: The kind of batch that the method draws.
        seed: Seed of the run's draws, None where it is not known.
        weights: Where the first weights came from, see :func:`name_weights`.
        length: The limits ``max_epochs`` and ``max_steps`` that the run was given.
    """
    return {
        "weights": weights,
        "seed": seed,
        "batches": batches,
        "identities_per_batch": datamodule.identities_per_batch,
        "images_per_modality": datamodule.images_per_modality,
        "steps_per_epoch": datamodule.training_data().steps_per_epoch,
        "augmentation": [_to_json(asdict(augmentation)) for augmentation in datamodule.augmentations],
        "training_list": datamodule.digest_training_list(),
        "processes": trainer.world_size,
        "gather": trainer.lightning_module.gathers,
        "sync_batchnorm": trainer.lightning_module.synchronises_normalisation,
        "accumulated_batches": trainer.accumulate_grad_batches,
        "precision": str(trainer.precision),
        "length": dict(length),
        "epochs": checkpoint["epoch"] + 1,
        "steps": checkpoint["global_step"],
        "synthetic": bool(getattr(datamodule.dataset, "synthetic", False)),
        "slurm_job": find_job(),
        "versions": list_versions(),
        "code": find_code_state(),
    }


def name_weights(arguments: Mapping[str, Any]) -> str | None:
    """Return where a method's first weights come from, by its constructor's arguments; None where they do not say.

    Files are named without their folders, which say more of a machine than of the weights; packages with their version.

    Example:
        >>> name_weights({"backbone": "resnet50.tv_in1k", "pretrained": True, "weights": None})
        'pretrained resnet50.tv_in1k'
    """
    if arguments.get("init_from"):
        return f"init_from {Path(str(arguments['init_from'])).name}"
    if "pretrained" not in arguments:
        return None
    if not arguments["pretrained"]:
        return "random"
    if arguments.get("weights"):
        return name_origin(str(arguments["weights"]), str(arguments.get("backbone")))
    return f"pretrained {arguments.get('backbone')}"


def _to_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a result file gives them back, with lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
