"""What a checkpoint says of the training that made its weights, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vireid_lightning.environment import find_code_state, list_versions
from vireid_lightning.modules.weights import name_origin


def describe_training(
    trainer: Any, checkpoint: Mapping[str, Any], datamodule: Any, *, batches: str, seed: int | None, weights: str | None
) -> dict[str, Any]:
    """Return the record of a training run for a checkpoint that is being written.

    Args:
        trainer: The trainer that trains.
        checkpoint: What Lightning has put into the checkpoint: epochs and steps.
        datamodule: The run's data.
        batches: The kind of batch that the method draws.
        seed: Seed of the run's draws, None where it is not known.
        weights: Where the first weights came from, see :func:`name_weights`.
    """
    return {
        "weights": weights,
        "seed": seed,
        "batches": batches,
        "identities_per_batch": datamodule.identities_per_batch,
        "images_per_modality": datamodule.images_per_modality,
        "processes": trainer.world_size,
        "accumulated_batches": trainer.accumulate_grad_batches,
        "precision": str(trainer.precision),
        "epochs": checkpoint["epoch"] + 1,
        "steps": checkpoint["global_step"],
        "synthetic": bool(getattr(datamodule.dataset, "synthetic", False)),
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
