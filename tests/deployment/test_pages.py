"""The pages on search and deployment do what they say."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from references.deployment import write_checkpoint

from vireid_lightning.deployment import Embedder, Gallery, export_checkpoint

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("search", "deployment")}
COMMANDS = [line for page in PAGES.values() for line in re.findall(r"^vireid .+$", page, flags=re.MULTILINE)]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_those_of_the_tools(command):
    name, *arguments = shlex.split(command)[1:]
    parser = argparse.ArgumentParser()
    importlib.import_module(f"vireid_lightning.cli.tools.{name}").add_arguments(parser)
    parser.parse_args(arguments)  # exits where one is unknown


def test_search_from_python(network, images, tmp_path, monkeypatch, capsys):
    write_checkpoint(tmp_path / "last.ckpt", network)
    (tmp_path / "camera1").symlink_to(images / "camera1")
    (tmp_path / "night.png").write_bytes((images / "camera3" / "02.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("search")
    exec(compile(code, "search.md", "exec", dont_inherit=True), {})
    printed = capsys.readouterr().out
    assert "night.png (infrared)" in printed
    assert len(re.findall(r"^ +\d+ +0\.\d{4} ", printed, flags=re.MULTILINE)) == 10


@pytest.mark.slow
def test_serving_without_this_package_gives_the_same_rank_list(checkpoint, images, tmp_path):
    pytest.importorskip("onnxruntime")
    embedder = Embedder.from_checkpoint(checkpoint, device="cpu")
    export_checkpoint(embedder, tmp_path / "last.onnx")
    (code,) = blocks("deployment")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "search.py").write_text(code)
    gallery, query = sorted((images / "camera1").iterdir()), images / "camera3" / "01.png"
    command = [sys.executable, tmp_path / "search.py", tmp_path / "last.onnx", query, *gallery]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = Gallery(embedder.embed(gallery, "visible")).search(embedder.embed(query, "infrared"), 10)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == [str(gallery[place]) for place in found.position[0]]
    assert [float(row[1]) for row in rows] == pytest.approx(found.distance[0].tolist(), abs=2e-4)
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)) - sys.stdlib_module_names
    assert imported == {"numpy", "onnxruntime", "PIL"}
