"""README and docs show the tables that the benchmarks wrote, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.curves import digest, draw, group
from benchmarks.evidence import FIGURES, MARKED, PAGES, ROOT, Runs, fill, format_table, read_tables, write_table

TABLES = read_tables()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_what_the_commands_wrote(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, TABLES) == text, (
        "run `python tests/benchmarks/evidence.py`, which writes the tables into the page"
    )


def test_every_table_is_shown_and_its_command_and_code_exist():
    shown = {match["name"] for page in PAGES for match in MARKED.finditer(page.read_text(encoding="utf-8"))}
    assert shown == {*TABLES, "index"}
    for table in TABLES.values():
        (script,) = (word for word in table["command"].split() if word.endswith(".py"))
        assert (ROOT / script).is_file()
        assert all((ROOT / path).exists() for path in table["code"])


def test_every_curve_is_shown_in_a_picture_of_its_values():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = {f"{name}-curves": table["curves"] for name, table in TABLES.items() if "curves" in table}
    assert pictures.keys() == {path.stem for path in FIGURES.glob("*.svg")}
    for name, curves in pictures.items():
        assert f"(figures/{name}.svg)" in pages
        assert f">{digest(curves)}<" in (FIGURES / f"{name}.svg").read_text(encoding="utf-8"), (
            "run `python tests/benchmarks/curves.py`, which draws the curves"
        )


def test_curves_are_drawn_by_method_and_term(tmp_path):
    pytest.importorskip("matplotlib")
    curves = {
        "A": {"identity": [4.0, 2.0], "triplet": [1.0, 0.5]},
        "A without b": {"identity": [4.0, 3.0], "triplet": [0.0, 0.0]},
        "B": {"dense": [0.0, 0.0], "identity": [5.0, 1.0]},
    }
    assert group(curves) == {"A": ["A", "A without b"], "B": ["B"]}
    draw({"name": "some", "curves": curves}, tmp_path / "one.svg")
    draw({"name": "some", "curves": curves}, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert digest(curves) in text
    for label in ("A: identity", "A: triplet", "B: identity", "A without b"):
        assert f">{label}<" in text
    assert "dense" not in text


def test_the_methods_of_the_readme_have_the_scores_of_the_quickstarts():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = TABLES["quickstart-methods"]["rows"]
    for method, ((rank1,), (mean_precision,)) in rows.items():
        (line,) = (line for line in readme.splitlines() if line.startswith(f"| [{method}]"))
        assert f"| {rank1:.2f} / {mean_precision:.2f} |" in line


def test_a_changed_figure_and_a_missing_table_are_found(tmp_path):
    rows = {"one": [[1.0, 2.0, 3.0], [4.0]], "two": [[5.5], []]}
    about = {"command": "python x.py", "code": ["x.py"], "settings": {}, "columns": ["", "a", "b"]}
    table = write_table("some", rows=rows, folder=tmp_path, **about)
    assert read_tables(tmp_path) == {"some": table}
    assert {"commit", "date", "machine", "versions"} <= table.keys()
    expected = "|  | a | b | seeds |\n|---|---:|---:|---:|\n| one | 2.0 +- 1.0 | 4.0 | 1-3 |\n| two | 5.5 | - | 1 |\n"
    assert format_table(table) == expected
    page = f"Text.\n<!-- figures: some -->\n{expected}<!-- end -->\nMore.\n"
    assert fill(page, {"some": table}) == page
    table["rows"]["one"][1] = [4.1]
    assert fill(page, {"some": table}) != page
    with pytest.raises(KeyError):
        fill(page, {})


def test_a_stopped_benchmark_goes_on_with_what_is_missing(tmp_path):
    trained = []

    def train(*, seed):
        trained.append(seed)
        return {"rank1": float(seed)}

    assert Runs(tmp_path).do("a run", {"seed": 0}, train)["rank1"] == 0
    again = Runs(tmp_path)
    assert again.do("a run", {"seed": 0}, train)["rank1"] == 0
    assert again.do("a run", {"seed": 1}, train)["rank1"] == 1
    assert trained == [0, 1]
    assert Runs(tmp_path, minutes=0).do("a run", {"seed": 2}, train) is None
    assert json.loads(again.path("a run", {"seed": 1}).read_text())["settings"] == {"seed": 1}
    assert not list(Path(tmp_path).glob("*.part"))


def test_the_figures_lie_in_the_repository():
    assert FIGURES.is_relative_to(ROOT)
