"""Names from files reach the terminal as text: no markup in them counts, and no control character is obeyed."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layout_files import write_plan
from rich.console import Console

from vireid_lightning.callbacks import RunSummary, run_summary
from vireid_lightning.cli import vireid
from vireid_lightning.data.synthetic.layouts import plan_manifest
from vireid_lightning.deployment import Gallery
from vireid_lightning.metrics import Embeddings
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.metrics.scoring import score_protocols
from vireid_lightning.metrics.terminal import make_table, to_text
from vireid_lightning.printable import make_printable
from vireid_lightning.protocols import Protocol, Trial

#: Names, and a part of what is shown of each.
HOSTILE = {
    "[red]x": "[red]x",
    "[/]y": "[/]y",
    "z\x1b[31m": r"z\x1b[31m",
    "a\rb": r"a\rb",
    "c\nd": r"c\nd",
    "e\u202ef": r"e\u202ef",
    "g\x9b2J": r"g\x9b2J",
    "[bold": "[bold",
    ":smile:": ":smile:",
}


@pytest.fixture(params=HOSTILE.items(), ids=list(HOSTILE.values()))
def hostile(request):
    return request.param


@pytest.fixture
def call(capsys):
    """Run a command; return its exit code, standard output and standard error, which hold nothing but text."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            vireid([*map(str, arguments)])
            code = 0
        except SystemExit as end:
            code = end.code
        out, error = capsys.readouterr()
        for text in (out, error):
            require_text(text)
        return code, out, error

    return call


def require_text(printed):
    kinds = {letter: unicodedata.category(letter) for letter in printed if letter != "\n"}
    assert [letter for letter, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")] == []


def join(printed):
    """Return what is printed without the line ends and spaces that a table breaks names at."""
    return "".join(printed.split())


def results(dataset="RegDB", method="AGW", protocol="visible-to-infrared"):
    row = {"protocol": protocol, "scores": {"rank1": 80.0, "mAP": 50.0}, "distance": "cosine", "reranking": None}
    about = {"dataset": dataset, "method": method, "dataset_trial": 1, "checkpoint_kind": "last", "unit": "percent"}
    whole = {**row, "cmc": "image", "removal": "none", "embedding_size": 8, "gallery_hash": "a"}
    return {**about, "fingerprint": "f", "checkpoint": "/a.ckpt", "results": [whole]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *HOSTILE.items(),
        ("", ""),
        (7, "7"),
        ("caf\u00e9 \u4eba\u3000\u00a0.png", "caf\u00e9 \u4eba\u3000\u00a0.png"),
        ("\udcff\x00\x7f\u2028\u2066\ufeff", r"\udcff\x00\x7f\u2028\u2066\ufeff"),
        (r"\x1b", r"\x1b"),
    ],
)
def test_control_characters_are_shown_and_all_else_stays(text, shown):
    assert make_printable(text) == shown
    assert make_printable(make_printable(text)) == shown


def test_every_character_is_either_left_or_shown_in_plain_letters():
    for number in [*range(0x3100), *range(0xD000, 0x10000), *range(0xE0000, 0xE0080)]:
        letter = chr(number)
        shown = make_printable(letter)
        assert shown == letter or (shown.isascii() and shown.isprintable() and shown.startswith("\\"))
        assert shown != letter or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def test_characters_that_are_kept():
    assert make_printable("a\n\x1bb\r", keep="\n") == "a\n\\x1bb\\r"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tables_show_titles_captions_and_cells_as_they_are(hostile, is_terminal):
    name, shown = hostile
    table = make_table(name, f"{name}, too")
    table.add_column(to_text(name))
    table.add_row(to_text(name))
    console = Console(file=io.StringIO(), width=80, force_terminal=is_terminal, no_color=True, color_system=None)
    console.print(table)
    assert console.file.getvalue().count(shown) == 4


def test_tables_of_scores(hostile):
    name, shown = hostile
    images = Embeddings(torch.eye(4).repeat(2, 1), torch.arange(8) % 4)
    protocol = Protocol(name, (Trial(np.arange(4), np.arange(4, 8)),))
    table = ScoreTable(score_protocols(images, images, [protocol]), {"dataset": name})
    console = Console(file=io.StringIO(), width=120)
    table.print(table.title, console)
    require_text(console.file.getvalue())
    assert console.file.getvalue().count(shown) == 2


def test_the_summary_of_a_run(hostile, monkeypatch):
    name, shown = hostile
    counts = {"identities": 1, "visible": 2, "infrared": 3, "cameras": 1}
    data = SimpleNamespace(
        summary=lambda: {"dataset": name, "splits": {name: counts}},
        dataset=SimpleNamespace(root=f"/{name}", synthetic=False),
    )
    monkeypatch.setattr(run_summary, "_describe_run", lambda *_: iter([("Weights", f"{name}.ckpt")]))
    console = Console(file=io.StringIO(), width=120)
    RunSummary(console).on_test_start(SimpleNamespace(datamodule=data), None)
    require_text(console.file.getvalue())
    assert console.file.getvalue().count(shown) == 4


@pytest.mark.parametrize("place", ["dataset", "method", "protocol"])
def test_aggregate(hostile, place, call, tmp_path):
    name, shown = hostile
    (tmp_path / "a.json").write_text(json.dumps(results(**{place: name})))
    code, out, _ = call("aggregate", tmp_path / "a.json")
    assert (code, join(shown) in join(out)) == (0, True)


@pytest.mark.parametrize("place", ["dataset", "method", "protocol"])
def test_compare(hostile, place, call, tmp_path):
    name, shown = hostile
    (tmp_path / "a.json").write_text(json.dumps(results(**{place: name})))
    code, out, _ = call("compare", tmp_path / "a.json")
    assert (code, join(shown) in join(out)) == (0, True)
    for kind in ("markdown", "latex", "csv"):
        assert call("compare", tmp_path / "a.json", "--format", kind)[0] == 0
    assert call("compare", tmp_path / "a.json", "--format", "csv", "--output", tmp_path / "a.csv")[0] == 0
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        read = next(csv.DictReader(file))[place]
    if "\r" not in name:  # csv takes that for the end of a line
        assert read == name  # a file holds the name itself


def test_rank_lists(hostile):
    name, shown = hostile
    rows = Embeddings(torch.eye(2), [0, 1], path=[name, f"b/{name}"])
    text = str(Gallery(rows).search(rows, 2))
    require_text(text)
    assert text.count(shown) == 6  # each path once as a query, and once in the list of each of the two


def test_check_dataset(hostile, call, tmp_path):
    name, shown = hostile
    root = write_plan(plan_manifest(train=2, val=0, test=2, images_per_camera=2), tmp_path)
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    person = next(row[1] for row in rows if row[-1] == "train" or "train" in row)
    kept = [[row[0], name, *row[2:]] if row[1] == person else row for row in rows]
    kept = [row for row in kept if not (row[1] == name and "infrared" in row)]  # a fault, which names the identity
    other = next(number for number, row in enumerate(kept) if row[1] != name)
    kept[other][0] = f"{name}.png"  # a missing file
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *kept])
    code, out, error = call("check-dataset", "Manifest", root / "manifest.csv")
    assert code in (1, 2)
    shown = shown.replace(r"\r", "").replace(r"\n", "")  # the line ends in its fields are not read
    assert join(shown) in join(out + error)


@pytest.mark.parametrize("tool", ["aggregate", "compare"])
def test_sentences_of_errors_are_one_line(hostile, tool, call, tmp_path):
    name, shown = hostile
    path = tmp_path / f"none {name.replace('/', '')}.json"
    code, out, error = call(tool, path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert shown.replace("/", "") in error
    (tmp_path / "a.json").write_text(json.dumps({**results(), "unit": name}))
    assert call("aggregate", tmp_path / "a.json")[0] == 2


def test_names_that_are_no_command(hostile, call):
    code, _, error = call(hostile[0])
    assert (code, error.count("\n"), hostile[1] in error) == (2, 1, True)
