"""Turns what the argument parser says about a config into one sentence with the nearest right name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass

from vireid_lightning.errors import did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_CLASS_PATH = re.compile(r"given class_path '([^']+)'")
_UNKNOWN = [
    re.compile(r"Option '([^']+)' is not accepted"),
    re.compile(r"does not accept option '([^']+)'"),
    re.compile(r"Key '([^']+)' is not expected"),
    re.compile(r"unrecognized arguments: (?:--)?([^\s=]+)"),
]
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_TYPE = re.compile(r"Expected an? <class '([\w.]+)'>")
_VALUE = re.compile(r"(?:Given|Got) value: (.+)")
_MISSING_FILE = re.compile(r"File does not exist: '?([^'\n]+)'?")


def option_names(classes: Iterable[type]) -> set[str]:
    """Return the names of all constructor arguments of classes, and of the fields of their dataclass arguments."""
    names: set[str] = set()
    for cls in classes:
        for name, parameter in inspect.signature(cls).parameters.items():
            names.add(name)
            if is_dataclass(parameter.default):
                names.update(item.name for item in fields(parameter.default))
    return names


def one_sentence(
    message: str, class_names: Collection[str], options: Collection[str], sections: Collection[str]
) -> str:
    """Return a parser's message as one sentence: what is wrong, where, and how to mend it.

    Args:
        message: What the parser said, possibly over many lines.
        class_names: Names that a ``class_path`` may have, to suggest the nearest of them.
        options: Names that an argument may have, likewise.
        sections: Names of a config's top level.
    """
    key = match.group(1) if (match := _KEY.search(message)) else ""
    place = f" at '{key}'" if key else ""
    if match := _MISSING_FILE.search(message):
        return f"There is no config file {match.group(1)}; give --config the path of an existing YAML file."
    if (match := _CLASS.search(message)) and "is not accepted" not in message:
        name = match.group(1)
        known = sorted(class_names)
        return f"There is no class '{name}'{place}.{did_you_mean(name.split('.')[-1], known)}"
    for pattern in _UNKNOWN:
        if match := pattern.search(message):
            name = match.group(1)
            owner = f" of {found.group(1).split('.')[-1]}" if (found := _CLASS_PATH.search(message)) else ""
            first, _, rest = name.partition(".")
            if not place and not owner and first not in sections:
                hint = did_you_mean(first, sections)
            else:
                asked = (rest or first).split(".")[-1]
                hint = did_you_mean(asked, set(options) - {asked})  # a name that another class has is no hint
            return f"There is no setting '{name}'{owner}{place}.{hint or ' `--print_config` lists the settings.'}"
    if match := _REQUIRED.search(message):
        owner = f" of {found.group(1).split('.')[-1]}" if (found := _CLASS_PATH.search(message)) else ""
        missing = match.group(1).strip()
        return f"Settings{owner}{place} are missing: {missing}; give them in the config or on the command line."
    types = [name for name in _TYPE.findall(message) if name != "NoneType"]
    problems = [line for line in message.splitlines() if line.lstrip().startswith("- ")]
    if key and types and (value := _VALUE.search(message)) and all(_TYPE.search(line) for line in problems):
        return f"The setting '{key}' is {value.group(1)}; give a value of type {' or '.join(types)}."
    details = " ".join(message.split())
    return details if details.endswith(".") else details + "."
