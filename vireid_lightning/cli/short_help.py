"""The settings that ``lightning fit --help`` lists; ``--help all`` lists all of them, the Trainer's many included."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

#: What is listed: whole sections by their name and a dot, single settings by their whole name.
_SHORT = (
    "help",
    "config",
    "print_config",
    "seed_everything",
    "ckpt_path",
    "model",
    "data",
    "data.",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.precision",
    "trainer.logger",
    "trainer.default_root_dir",
    "checkpoint.monitor",
    "retrieval.distance",
    "report.html",
    "test_after_fit",
    "allow_untrained",
)

_NOTE = "The settings that most runs need; `--help all` lists all of them."


def wants_short(args: Sequence[str]) -> bool:
    """Return whether arguments ask for help, and not for all of it."""
    places = [place for place, argument in enumerate(args) if argument in ("-h", "--help")]
    return bool(places) and "all" not in args[places[0] + 1 : places[0] + 2]


def shorten(parsers: Mapping[str, argparse.ArgumentParser]) -> None:
    """Leave all but the chosen settings out of the parsers' help; parsing is not touched."""
    for name, parser in parsers.items():
        parser.usage = f"lightning {name} --config FILE [--config FILE ...] [--key value ...]"
        for action in parser._actions:
            key = action.dest.removesuffix(".help")
            if not any(key == chosen or (chosen[-1] == "." and key.startswith(chosen)) for chosen in _SHORT):
                action.help = argparse.SUPPRESS
        for group in parser._action_groups:
            if all(action.help == argparse.SUPPRESS for action in group._group_actions):
                group.description = None
        parser.epilog = _NOTE
