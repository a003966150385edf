"""``--help`` prints each argument's line alone, so each argument has one, and it stands on its own."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import typing

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from vireid_lightning import callbacks, data, methods
from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data import CrossModalityDataModule, ReIDDataset
from vireid_lightning.methods import ReIDModule

#: Beginnings of a line that only makes sense below another one.
LEANS_ON_ANOTHER = re.compile(
    r"(of|the same|same|likewise|ditto|as above|those of|its|theirs?|as for)\b", re.IGNORECASE
)


def constructors() -> list[type]:
    """Return every class whose constructor a config can call."""
    public = [getattr(module, name) for module in (methods, data, callbacks) for name in module.__all__]
    bases = (ReIDModule, ReIDDataset)
    classes = [item for item in public if inspect.isclass(item) and (issubclass(item, bases) and item not in bases)]
    classes += [CrossModalityDataModule, *(getattr(callbacks, name) for name in callbacks.__all__)]
    settings: list[type] = []
    for cls in classes:  # grows while it is walked: settings may hold settings
        for hint in typing.get_type_hints(cls.__init__).values():
            found = [item for item in parts(hint) if dataclasses.is_dataclass(item)]
            settings += [item for item in found if item not in settings]
            classes += [item for item in found if item not in classes]
    assert {"Optimization", "Augmentation", "Source", "ReRanking"} <= {item.__name__ for item in settings}
    return classes


def parts(hint) -> list:
    return [hint, *(inner for part in typing.get_args(hint) for inner in parts(part))]


def faults(actions) -> list[str]:
    """Return the arguments whose help does not stand on its own."""
    found = []
    for action in actions:
        if not action.help:
            found.append(f"{action.dest} has no help")
        elif LEANS_ON_ANOTHER.match(action.help):
            found.append(f"{action.dest}: {action.help}")
    return found


@pytest.mark.parametrize("cls", constructors(), ids=lambda cls: cls.__name__)
def test_every_argument_of_a_constructor_explains_itself(cls):
    parser = LightningArgumentParser()
    parser.add_class_arguments(cls, "it")
    actions = [action for action in parser._actions if action.dest.startswith("it.") and "help" not in action.dest]
    found = faults(actions)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", vireid.subcommands)
def test_every_argument_of_a_tool_explains_itself(name):
    tool = importlib.import_module(f"vireid_lightning.cli.tools.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    assert len(parser._actions) > 1
    found = faults(parser._actions)
    assert not found, "\n".join(found)


def test_the_settings_of_a_run_explain_themselves(capsys):
    with pytest.raises(SystemExit):
        lightning(["fit", "--help", "all"])
    printed = capsys.readouterr().out
    assert "  --trainer.gradient_clip_val " in printed
    for setting in (
        "--data.dataset",
        "--data.seed",
        "--retrieval.distance",
        "--checkpoint.monitor",
        "--test_after_fit",
    ):
        assert f"  {setting} " in printed


def test_help_is_short_unless_all_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        lightning(["fit", "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lightning fit --config FILE")
    assert len(printed.splitlines()) < 300
    for setting in ("--data.dataset", "--data.seed", "--trainer.max_epochs", "--model", "--checkpoint.monitor"):
        assert f"  {setting} " in printed
    assert "--trainer.gradient_clip_val" not in printed
    assert "--help all" in printed


@pytest.mark.parametrize("text", ["Of the cross-entropy.", "The same for infrared images.", "Likewise."])
def test_what_leans_on_another_line_is_found(text):
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--fine", help="Weight of the cross-entropy.")
    parser.add_argument("--weight", help=text)
    parser.add_argument("--bare")
    assert faults(parser._actions) == [f"weight: {text}", "bare has no help"]
