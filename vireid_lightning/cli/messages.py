"""Turns what the argument parser says about a config into one sentence with the nearest right name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

from vireid_lightning.cli.moved_keys import MOVED_KEYS
from vireid_lightning.errors import did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"')
_SHORT_NAME = re.compile(r"Expected a dot import path string: (\S+)")
_CLASS_PATH = re.compile(r"given class_path '([^']+)'")
_ANY_CLASS_PATH = re.compile(
    r"(?:class_path'?:? '|Import path |class, but |a path but )(\w+(?:\.\w+)+)\b(?<!\.yaml)(?<!\.json)"
)
_BASE_CLASS = re.compile(r"not correspond to a subclass of (\w+)")
_UNKNOWN = re.compile(
    r"Option '([^']+)' is not accepted|accept option '([^']+)'|"
    r"Key '([^']+)' is not expected|unrecognized arguments: (?:--)?([^\s=]+)"
)
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_TYPE = re.compile(r"Expected an? <class '([\w.]+)'>")
_CHOICES = re.compile(r"Expected a typing\.Literal\[(.+?)\]\.?(?:\s|$)")
_VALUE = re.compile(r"(?:Given|Got) value: (?:NestedArg\(key='[^']*', val='?(.*?)'?\)$|(.+))", re.MULTILINE)
_MISSING_FILE = re.compile(r"File does not exist: '?([^'\n]+)'?")


def list_options(classes: Iterable[type]) -> set[str]:
    """Return the names of all constructor arguments of classes, and of the fields of their dataclass arguments."""
    parameters = [parameter for cls in classes for parameter in inspect.signature(cls).parameters.values()]
    parts = [item for parameter in parameters if is_dataclass(parameter.default) for item in fields(parameter.default)]
    return {item.name for item in parameters}.union(item.name for item in parts)


def explain_message(message: str, classes: Collection[str], options: Collection[str], sections: Collection[str]) -> str:
    """Return a parser's message as one sentence: what is wrong, where, and how to mend it.

    Args:
        message: What the parser said, possibly over many lines.
        classes: Short names that a class may be given by, to suggest the nearest of them.
        options: Names that a setting may have, to suggest the nearest of them.
        sections: Names of a config's top level, to suggest the nearest of them.
    """
    owner = f" of {match.group(1).split('.')[-1]}" if (match := _CLASS_PATH.search(message)) else ""
    keys = _KEY.findall(message)
    key = ".".join(keys[:2] if owner else keys[:1])  # a class's own setting is told as a key within the class's
    place = f" at '{key}'" if key else ""
    if match := _MISSING_FILE.search(message):
        return f"There is no config file {match.group(1)}; give --config the path of an existing YAML file."
    choices = [word for listed in _CHOICES.findall(message) for word in re.findall(r"'([^']*)'", listed)]
    if (match := _SHORT_NAME.search(message)) and "is not accepted" not in message:
        name = match.group(1)
        if choices:  # a word that stands for settings, in place of these
            listed = ", ".join(dict.fromkeys(choices))
            return f"The setting '{key}' is {name}; give one of {listed}, or settings.{did_you_mean(name, choices)}"
        return f"There is no class '{name}'{place}.{did_you_mean(name.split('.')[-1], sorted(classes))}"
    if match := _ANY_CLASS_PATH.search(message):
        base = found.group(1) if (found := _BASE_CLASS.search(message)) else ""
        if problem := explain_class(match.group(1), base):
            return problem
    if match := _UNKNOWN.search(message):
        name = next(filter(None, match.groups()))
        first, _, rest = name.partition(".")
        if (moved := MOVED_KEYS.get(name.split(".")[-1])) is not None:
            return f"The setting '{name}'{owner}{place} has moved; give --{moved} instead."
        if not place and not owner and first not in sections:
            hint = did_you_mean(first, sections)
        else:
            unknown = (rest or first).split(".")[-1]
            hint = did_you_mean(unknown, set(options) - {unknown})  # a name that another class has is no hint
        return f"There is no setting '{name}'{owner}{place}.{hint or ' `--print_config` lists the settings.'}"
    if match := _REQUIRED.search(message):
        missing = match.group(1).strip()
        return f"Settings{owner}{place} are missing: {missing}; give them in the config or on the command line."
    types = [name for name in _TYPE.findall(message) if name != "NoneType"]
    problems = re.findall(r"^ *- (?!Problem with given class_path).+", message, re.MULTILINE)
    if key and (value := _VALUE.search(message)):
        word = next(filter(None, value.groups()))
        if choices and all(_TYPE.search(line) or _CHOICES.search(line) for line in problems):
            given = f"The setting '{key}' is {word}; give one of {', '.join(dict.fromkeys(choices))}."
            return given + did_you_mean(word, choices)
        if types and all(_TYPE.search(line) for line in problems):
            return f"The setting '{key}' is {word}; give a value of type {' or '.join(types)}."
    details = " ".join(message.split())
    return details if details.endswith(".") else details + "."


def explain_class(path: str, base: str) -> str | None:
    """Return what keeps a class from being used, or None where nothing does.

    Args:
        path: The class by its module, as the config or the command line names it.
        base: Name of the class that it should be derived from, where the parser found that it is not.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the user's file raises
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            hint = did_you_mean(str(error.name), [file.stem for file in Path().glob("*.py")])
            return f"There is no module '{error.name}' for '{path}', installed or in the current folder.{hint}"
        return f"'{path}' cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}."
    cls = getattr(module, name, None)
    if cls is None:
        found = [listed for listed in dir(module) if isinstance(getattr(module, listed), type)]
        return f"The module '{module_name}' has no class '{name}'.{did_you_mean(name, found)}"
    if base:
        return f"'{path}' is no {base}; give a class that is derived from {base}."
    if inspect.isabstract(cls):
        return f"'{path}' cannot be built: it does not implement {', '.join(sorted(cls.__abstractmethods__))}."
    return None
