"""Where in its epochs a run is, as its checkpoints say it and as Lightning reads it when the run goes on."""

from __future__ import annotations

from typing import Any


def settle_epoch(checkpoint: dict[str, Any], *, steps: float, within_epochs: bool) -> None:
    """Have a checkpoint that is saved at the end of an epoch say that the epoch is over, or how far it came.

    Lightning saves there in the middle of its own counting, and where training is limited by ``max_steps`` the resumed
    run counts an epoch that it has not trained. Where the epoch ended early, by ``max_steps`` or ``max_time``, a run
    that is then given more goes on with the batches that are left.

    Args:
        checkpoint: The checkpoint that is being written; its ``loops`` are changed in place.
        steps: Number of steps of a whole epoch.
        within_epochs: Whether the method can go on within an epoch.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    epochs, batches = loop.get("epoch_progress"), loop.get("epoch_loop.batch_progress")
    if epochs is None or batches is None:
        return
    total = epochs["total"]
    if not total["ready"] == total["started"] == total["processed"] == total["completed"] + 1:
        return
    if batches["current"]["completed"] < steps and within_epochs:
        for part in (epochs["total"], epochs["current"]):
            part["processed"] -= 1
        batches["is_last_batch"] = False
        return
    for part in (epochs["total"], epochs["current"]):
        part["completed"] = part["processed"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def begin_validation_anew(checkpoint: dict[str, Any]) -> None:
    """Have a checkpoint that is saved in a validation within training begin that validation when the run goes on.

    Lightning leaves out the validation that follows a checkpoint unless its progress says that it was under way.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for part in ("total", "current"):
        progress[part] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
