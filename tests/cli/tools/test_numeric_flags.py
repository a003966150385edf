"""Every numeric flag of every tool refuses what is no number of its range, in a sentence that names the flag."""

from __future__ import annotations

import argparse
import importlib
import math
import pkgutil

import pytest

from vireid_lightning.cli import tools, vireid
from vireid_lightning.cli.numbers import Number, Whole

#: Types of flags that are no numbers, and why.
OTHERS = {"Path": "a folder", "_read_size": "two numbers with an x; tests/cli/tools/test_synthesize.py"}


def list_flags():
    """Yield the tool, the flag and its action, of all flags that have a type."""
    for name in sorted(module.name for module in pkgutil.iter_modules(tools.__path__)):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"vireid_lightning.cli.tools.{name}").add_arguments(parser)
        for action in parser._actions:
            if action.type is not None and action.type is not str:
                yield name.replace("_", "-"), (action.option_strings or [action.dest])[0], action


FLAGS = list(list_flags())


def list_bad(kind):
    yield from ("nan", "inf", "-inf", "a word", "", "1e400", "0x10", "None", "-1")
    if kind.whole:
        yield from ("1.5", "1e3", str(10**20))
    if kind.least > -math.inf:
        yield str(kind.least if kind.above else kind.least - 1)
    if kind.most < math.inf:
        yield str(kind.most if kind.below else kind.most + 1)


def test_flags_that_take_numbers_are_of_the_checked_types():
    assert len(FLAGS) > 30
    others = {(tool, flag) for tool, flag, action in FLAGS if not isinstance(action.type, Number)}
    assert {getattr(action.type, "__name__", "") for tool, flag, action in FLAGS if (tool, flag) in others} == {*OTHERS}


@pytest.mark.parametrize(
    ("tool", "flag", "action"),
    [case for case in FLAGS if isinstance(case[2].type, Number)],
    ids=[f"{tool} {flag}" for tool, flag, action in FLAGS if isinstance(action.type, Number)],
)
def test_wrong_numbers_are_refused(tool, flag, action, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for text in list_bad(action.type):
        if action.nargs == 2 and text == "-inf":
            continue  # taken for a flag, which is refused too
        with pytest.raises(SystemExit) as stopped:
            vireid([tool, *([f"{flag}={text}"] if action.nargs is None else [flag, "64", text])])
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert error.startswith(f"error: {flag}")
        assert " is " in error
        assert "; give a " in error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_numbers_in_the_range_are_taken():
    assert Number(0, 1)("0.5") == 0.5
    assert Number(0, 1)("1") == 1.0
    assert Whole(3)("3") == 3
    assert type(Whole(3)("3")) is int
    for kind, text in ((Number(0, above=True), "0"), (Number(0, 1, below=True), "1"), (Whole(1, 5), "6")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"^is {text}(\\.0)?; give a"):
            kind(text)
