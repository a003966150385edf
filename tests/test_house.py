"""The house's order beyond the contracts of import-linter: no cycles of files, and shared code that names no method."""

from __future__ import annotations

import graphlib
import re
from pathlib import Path

import pytest

import vireid_lightning
from vireid_lightning import methods
from vireid_lightning.methods import ReIDModule

PACKAGE = Path(vireid_lightning.__file__).parent

#: The methods' class names.
METHODS = sorted(
    name
    for name in methods.__all__
    if isinstance(kind := getattr(methods, name), type) and issubclass(kind, ReIDModule) and kind is not ReIDModule
)

#: Files that may name methods which are not their own, and why.
EXCEPTIONS = {
    "methods/__init__.py": (set(METHODS), "the public names of the methods"),
    "methods/released": ({"AGW", "DCLNet", "MPANet"}, "each release is the code of a method's authors"),
    "data/images/augmentation.py": ({"AGW", "DCLNet", "MPANet"}, "config values: the papers' augmentations"),
    "data/datamodule.py": ({"MPANet"}, "a config value: the default augmentation"),
}


def name_pattern(method: str) -> re.Pattern[str]:
    """Find a method's name as a word or as part of a name in snake case; `baseline` is also a word of the language."""
    return re.compile(rf"(?<![A-Za-z0-9]){method}(?![A-Za-z0-9])", re.IGNORECASE if method != "Baseline" else 0)


def find_methods(text: str) -> set[str]:
    """Return the methods that a text names."""
    return {method for method in METHODS if name_pattern(method).search(text)}


def allow_methods(file: str) -> set[str]:
    """Return the methods that a file may name: its own, and those of the exceptions."""
    parts = file.removesuffix(".py").split("/")
    own = {method for method in METHODS if parts[0] == "methods" and parts[1] == method.lower()}
    return own.union(*(names for place, (names, _) in EXCEPTIONS.items() if f"{file}/".startswith(f"{place}/")))


def test_names_are_found_in_words_and_in_snake_case():
    text = "MPANet's loss, cmam_stage, experiments/agw_sysu.yaml, a Baseline"
    assert find_methods(text) == {"MPANet", "CMAM", "AGW", "Baseline"}
    assert not find_methods("a baseline, a recommendation, MPANets")


@pytest.mark.parametrize("file", sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")))
def test_shared_code_names_no_method(file):
    lines = (PACKAGE / file).read_text(encoding="utf-8").splitlines()
    allowed = allow_methods(file)
    places = [f"{file}:{number}: {line}" for number, line in enumerate(lines, 1) if find_methods(line) - allowed]
    assert not places, "\n".join(places)


@pytest.mark.parametrize("place", EXCEPTIONS)
def test_an_exception_is_needed(place):
    path = PACKAGE / place
    text = "\n".join(file.read_text(encoding="utf-8") for file in ([path] if path.is_file() else path.rglob("*.py")))
    assert find_methods(text) == EXCEPTIONS[place][0]


def test_no_files_import_each_other():
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("vireid_lightning", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 100
    # Raises CycleError, which names the files of a cycle.
    tuple(graphlib.TopologicalSorter(imports).static_order())
