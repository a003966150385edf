"""Whether a run may go on from a checkpoint: the same method, data, batches and optimisation, or a refusal.

What may change is how the run is carried out: the number of processes, the precision, the workers, the length of the
run, what is logged. A change of these is written into the checkpoints that follow, as ``resumed`` of their record of
training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK, FIRST_WEIGHTS

#: What of the record of training a resumed run must not change, and the setting that it comes from.
_FIXED = {
    "batches": "the method's batches",
    "seed": "seed_everything",
    "identities_per_batch": "data.identities_per_batch",
    "images_per_modality": "data.images_per_modality",
    "steps_per_epoch": "data.steps_per_epoch",
    "accumulated_batches": "trainer.accumulate_grad_batches",
    "augmentation": "data.visible_transforms or data.infrared_transforms",
}

#: Settings of the optimisation that change no result, and may differ.
_FREE = ("compile", "gradient_checkpointing")

#: What of it may change, and is recorded.
_RECORDED = ("processes", "precision", "length")


def check_resumed(path: object, checkpoint: Mapping[str, Any], now: Mapping[str, Any], arguments: Any) -> None:
    """Refuse to go on from a checkpoint of a run that was another one.

    Args:
        path: The checkpoint's path, for messages.
        checkpoint: Content of the file; what it does not say, as files of earlier versions, is not compared.
        now: What the run would write into its own checkpoints, see :func:`~.checkpoint.describe_run`.
        arguments: The method's constructor arguments now.

    Raises:
        VIReIDError: If data, preparation of images, batches, or the method's arguments differ.
    """
    block = checkpoint.get(BLOCK)
    if block is None:
        return
    if "optimizer_states" not in checkpoint or "loops" not in checkpoint:
        raise VIReIDError(
            f"{path} holds weights alone, from which no run can go on; start a new one from them with "
            f"--model.init_args.init_from {path}."
        )
    _check_data(path, block, now)
    names = [
        name for name, value in now.get("preprocessing", {}).items() if block["preprocessing"].get(name, value) != value
    ]
    for name in names if "preprocessing" in block else ():
        _refuse(path, f"data.{name}", block["preprocessing"][name], now["preprocessing"][name])
    before, training = block.get("training") or {}, now.get("training") or {}
    for name, setting in _FIXED.items():
        if name in before and name in training and before[name] != training[name]:
            _refuse(path, setting, before[name], training[name])
    compare_arguments(path, checkpoint.get("hyper_parameters", {}), arguments)


def compare_arguments(
    path: object, stored: Mapping[str, Any], given: Any, free: Collection[str] = (), *, prefix: str = "model.init_args"
) -> None:
    """Refuse arguments of a method, in plain values, that are not those of the run that goes on.

    Args:
        path: The checkpoint's path, for messages.
        stored: The arguments that the checkpoint holds.
        given: The arguments now: a mapping, a dataclass or a parser's namespace.
        free: Arguments that may differ.
        prefix: How the settings are called, for messages.
    """
    skipped = {*FIRST_WEIGHTS, *free}
    values = _to_plain(given)
    for name in sorted((set(stored) & set(values)) - skipped):
        before, value = _to_plain(stored[name]), values[name]
        if name == "num_classes" and value is None:  # taken from the data
            continue
        if name == "optimization":  # an earlier version may have had fewer settings
            compare_arguments(path, before, value, _FREE, prefix=f"{prefix}.{name}")
        elif before != value:
            _refuse(path, f"{prefix}.{name}", before, value)


def list_changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what a resumed run changes of how it is carried out, [before, now] by name."""
    before = before or {}
    return {
        name: [before[name], now[name]]
        for name in _RECORDED
        if name in before and name in now and before[name] != now[name]
    }


def _check_data(path: object, block: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if "dataset" not in block or "dataset" not in now:
        return
    advice = (
        "give the data that the run began with, or start a new run from its weights with "
        f"--model.init_args.init_from {path}"
    )
    before, dataset = block["dataset"], now["dataset"]
    for was, given in (
        (before.get("name"), dataset["name"]),
        (f"trial {before.get('trial')} of {before.get('name')}", f"trial {dataset['trial']}"),
    ):
        if was != given and not was == f"{given} of {dataset['name']}":
            raise VIReIDError(f"{path} was trained on {was}, but the data is {given}; {advice}.")
    old, new = block.get("identities", []), now.get("identities", [])
    if list(old) != list(new):
        lost, added = sorted(set(old) - set(new)), sorted(set(new) - set(old))
        parts = [f"{_list(part)} {verb}" for part, verb in ((lost, "missing"), (added, "new")) if part]
        raise VIReIDError(
            f"{path} was trained on {len(old)} identities, but the data has {len(new)} ({'; '.join(parts)}), so that "
            f"its classifier would take one person for another; {advice}."
        )
    lists = [part.get("training", {}) or {} for part in (block, now)]
    pairs = [
        (before.get("fingerprint"), dataset.get("fingerprint")),
        tuple(each.get("training_list") for each in lists),
    ]
    for was, given in pairs:
        if was is not None and given is not None and was != given:
            raise VIReIDError(
                f"{path} was trained on another list of images of {dataset['name']} (fingerprint {was}, now {given}); "
                f"{advice}."
            )


def _refuse(path: object, setting: str, before: Any, now: Any) -> None:
    raise VIReIDError(
        f"{path} is of a run whose {setting} is {before}, and now it is {now}; set it back to go on with that run, or "
        f"start a new one from its weights with --model.init_args.init_from {path}."
    )


def _list(numbers: Sequence[Any]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _to_plain(value: Any) -> Any:
    """Return dictionaries, lists and plain values for what a config, a constructor or a checkpoint holds."""
    if is_dataclass(value) and not isinstance(value, type):
        return _to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _to_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(each) for each in value]
    if hasattr(value, "as_dict"):  # a parser's namespace
        return _to_plain(value.as_dict())
    return value
