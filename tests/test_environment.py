from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from vireid_lightning.environment import find_code_state, list_versions
from vireid_lightning.version import __version__


def git(*arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is absent")
def test_commit_and_changes_of_the_current_folder(tmp_path, monkeypatch):
    states = {}
    for name in ("none", "empty", "clean", "changed", "extra"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        if name != "none":
            git("init", "-q")
        if name not in ("none", "empty"):
            (folder / "method.py").write_text("1")
            git("add", "method.py")
            git("commit", "-q", "-m", "first")
        if name == "changed":
            (folder / "method.py").write_text("2")
        if name == "extra":
            (folder / "results.json").write_text("3")  # what runs write does not make the code another
        states[name] = find_code_state()
    assert states["none"] is None
    assert states["empty"] is None
    assert [states[name]["dirty"] for name in ("clean", "changed", "extra")] == [False, True, False]
    assert len(states["clean"]["commit"]) == 40


def test_no_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_code_state() is None


def test_versions_are_those_that_are_imported():
    import lightning
    import timm
    import torch

    found = list_versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["vireid_lightning"] == __version__
    # A build's own suffix, such as +cu128, may stand in one of the two alone.
    for name, package in (("torch", torch), ("lightning", lightning), ("timm", timm)):
        assert found[name].split("+")[0] == package.__version__.split("+")[0]


def test_every_requirement_says_its_oldest_release():
    """What an environment of the oldest releases is made from (CONTRIBUTING.md)."""
    requirements = [Requirement(line) for line in requires("vireid-lightning")]
    assert len(requirements) > 30
    for requirement in requirements:
        own = requirement.name == "vireid-lightning"
        assert own or any(each.operator in (">=", "==") for each in requirement.specifier), str(requirement)
