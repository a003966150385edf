"""Arguments that methods share are documented once, and every method's help has a line for each of its arguments."""

from __future__ import annotations

import contextlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

from vireid_lightning.cli import lightning
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, DCLNet, MPANet, Optimization, ReIDModule
from vireid_lightning.methods.arguments import SHARED_ARGUMENTS

METHODS = [Baseline, AGW, MPANet, DCLNet, MMGL, CMAM]


def printed_help(name: str, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        lightning(["fit", f"--model.help={name}"])
    assert not stop.value.code
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("method", METHODS)
def test_the_command_line_explains_every_argument(method, capsys):
    text = printed_help(method.__name__, capsys)
    for name in inspect.signature(method).parameters:
        if name not in ("optimization", "backbone_settings"):  # groups, with a heading and lines of their own
            assert re.search(rf"--model\.{name} (\S+|\[[^]]*\]) [A-Z]", text), name
    assert SHARED_ARGUMENTS["weights"] in text


def test_so_it_does_for_a_users_own_method(tmp_path, monkeypatch, capsys):
    shutil.copy(Path(__file__).parent / "examples" / "cluster_contrast.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    text = printed_help("cluster_contrast.ClusterContrast", capsys)
    for line in (SHARED_ARGUMENTS["backbone"], SHARED_ARGUMENTS["pretrained"], "Largest Jaccard distance of two"):
        assert line in text


def test_a_method_may_say_more_and_one_without_a_docstring_is_documented_too():
    class Silent(ReIDModule):
        def __init__(self, *, backbone: str = "resnet18", optimization: Optimization = Optimization()) -> None:
            super().__init__(num_classes=None, optimization=optimization)

    class Outspoken(Silent):
        """Says more.

        Args:
            backbone: The smaller the better.

        Raises:
            VIReIDError: Never.
        """

    assert inspect.getdoc(Silent).count(f"backbone: {SHARED_ARGUMENTS['backbone']}") == 1
    text = inspect.getdoc(Outspoken)
    assert text.startswith("Says more.\n\nArgs:\n")
    assert text.count("backbone:") == 1
    assert "    backbone: The smaller the better." in text
    assert f"    optimization: {SHARED_ARGUMENTS['optimization']}\n" in text
    assert text.endswith("Raises:\n    VIReIDError: Never.")
    assert "num_classes" not in text


def list_numbers() -> list[tuple[type[ReIDModule], str, object]]:
    """Return every argument of every method whose default is a number, or several."""
    found = []
    for method in METHODS:
        for name, parameter in inspect.signature(method).parameters.items():
            value = parameter.default
            if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
                found.append((method, name, float("nan")))
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], (int, float)):
                found.append((method, name, type(value)(float("nan") for _ in value)))
    return found


@pytest.mark.parametrize(("method", "name", "value"), list_numbers())
def test_a_number_that_is_none_is_refused_by_its_name(method, name, value):
    with pytest.raises((VIReIDError, TypeError), match=name):
        method(backbone="test_resnet", pretrained=False, **{name: value})


@pytest.mark.parametrize(("method", "name", "value"), list_numbers())
@pytest.mark.parametrize("number", [-1, 10**6])
def test_a_number_out_of_range_is_accepted_or_told_in_a_sentence(method, name, value, number):
    value = [number] * len(value) if isinstance(value, (list, tuple)) else number
    must_fail = number < 0 and name.endswith(("weight", "margin", "temperature"))
    # No other exception passes.
    with pytest.raises(VIReIDError, match=name) if must_fail else contextlib.suppress(VIReIDError):
        method(backbone="test_resnet", pretrained=False, **{name: value})


@pytest.mark.parametrize("field", ["lr", "weight_decay", "momentum", "gamma"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_optimisation_refuses_numbers_out_of_range(field, value):
    with pytest.raises(VIReIDError, match=rf"optimization\.{field} is"):
        Optimization(optimizer="sgd", **{field: value})


@pytest.mark.parametrize(
    "settings",
    [{"warmup_epochs": -1}, {"milestones": [-3, 4]}, {"lr_factors": {"a": float("nan")}}, {"momentum": 0.0}],
)
def test_so_it_does_for_its_other_settings(settings):
    with pytest.raises(VIReIDError, match=rf"optimization\.{next(iter(settings))}"):
        Optimization(optimizer="sgd", **settings)
