"""Settings that have moved: configs that have them at their former places are still read."""

from __future__ import annotations

from typing import Any

#: Former argument of a method of this package -> its place in a config today.
MOVED_KEYS = {"source_labels": "data.source.labels"}


def move_keys(config: Any) -> Any:
    """Return the content of a config file with its settings at their places of today.

    The arguments of a user's own method stay, whatever their names are. A setting that is false is dropped where the
    config does not have the section that it has moved to.

    Example:
        >>> move_keys({"model": {"init_args": {"source_labels": True}}})["data"]
        {'source': {'labels': True}}
    """
    model = config.get("model") if isinstance(config, dict) else None
    arguments = model.get("init_args") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(arguments, dict) or _is_users(str(model.get("class_path", ""))):
        return config
    for argument in MOVED_KEYS.keys() & arguments.keys():
        value = arguments.pop(argument)
        *sections, name = MOVED_KEYS[argument].split(".")
        section = config
        for key in sections:
            found = section.setdefault(key, {}) if value else section.get(key)
            section = found if isinstance(found, dict) else {}
        section.setdefault(name, value)
    return config


def _is_users(class_path: str) -> bool:
    return "." in class_path and not class_path.startswith("vireid_lightning.")
