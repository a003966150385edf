"""README and docs show the tables that the benchmarks wrote, and nothing else."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest
from benchmarks.curves import digest, draw, group
from benchmarks.evidence import (
    FIGURES,
    MARKED,
    PAGES,
    ROOT,
    fill,
    format_table,
    list_stale,
    main,
    read_tables,
    subtract,
    write_table,
)
from benchmarks.runs import Runs, add_run_options, name_settings

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
    assert again.take_origin().keys() == {"commit", "dirty", "date", "machine"}
    assert again.take_origin() == {}
    assert not list(Path(tmp_path).glob("*.part"))


def test_a_table_names_the_commits_of_its_runs_and_not_of_its_writing(tmp_path):
    for seed, commit in enumerate(("b" * 40, "a" * 40, "a" * 40)):
        path = Runs(tmp_path).path("a run", {"seed": seed})
        origin = {"commit": commit, "dirty": seed == 0, "date": f"2026-01-0{3 - seed}", "machine": "one"}
        path.write_text(json.dumps({"origin": origin}))
    Runs(tmp_path).path("a run", {"seed": 3}).write_text("{}")
    runs = Runs(tmp_path)
    runs.find("a run", {"seed": 1})
    runs.find("a run", {"seed": 2})
    assert runs.take_origin() == {
        "commit": "a" * 40,
        "dirty": False,
        "date": "2026-01-01, 2026-01-02",
        "machine": "one",
    }
    runs.find("a run", {"seed": 0})
    runs.find("a run", {"seed": 1})
    assert (runs.take_origin()["commit"]) == f"{'a' * 40}, {'b' * 40}"
    runs.find("a run", {"seed": 3})
    assert runs.take_origin() == {"commit": "unknown", "dirty": True, "date": "unknown", "machine": "unknown"}


def test_the_command_of_a_table_has_every_setting_that_was_changed():
    parser = argparse.ArgumentParser()
    add_run_options(parser, "runs/x")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--rows", nargs="+", default=["a"])
    words = ["--steps", "3", "--rates", "0.5", "2e-3", "--cost", "--rows", "b", "--table", "--write", "--minutes", "3"]
    named = name_settings("x.py", parser, parser.parse_args(words), without=["rows"])
    assert named == "python x.py --steps 3 --rates 0.5 0.002 --cost"
    assert name_settings("x.py", parser, parser.parse_args([])) == "python x.py"


def test_a_table_whose_code_has_changed_since_is_listed():
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if not commit:
        pytest.skip("not a git repository")
    fresh = {"commit": commit, "code": ["README.md"]}
    gone = {"commit": f"{'0' * 40}, {commit}", "code": ["README.md"]}
    assert list_stale({"fresh": fresh, "gone": gone}) == {"gone": [f"commit {'0' * 40} is not here"]}


def test_rows_are_subtracted_seed_by_seed(capsys):
    rows = {"a": [[1.0, 2.0], [3.0], "text"], "b": [[4.0, 7.0], [], "text"]}
    assert subtract({"name": "x", "rows": rows}, "a") == {"b": [[3.0, 5.0], [], []]}
    main(["--minus", "supervised-0", "MPANet"])
    expected = format_table({**TABLES["supervised-0"], "rows": subtract(TABLES["supervised-0"], "MPANet")})
    assert capsys.readouterr().out == f"{expected}\n"
    for words, told in (
        (["--minus", "nothing", "a"], "There is no table 'nothing'"),
        (["--minus", "supervised-0", "nothing"], "supervised-0 has no row 'nothing'"),
        (["--against", "nothing", "supervised-0"], "There is no nothing:docs/figures/supervised-0.json"),
    ):
        with pytest.raises(SystemExit, match=told):
            main(words)


def test_a_table_is_compared_with_that_of_a_commit(capsys):
    if subprocess.run(["git", "cat-file", "-e", "HEAD:docs/figures/supervised-0.json"], cwd=ROOT).returncode:
        pytest.skip("not a git repository")
    main(["--against", "HEAD", "quickstart"])
    assert capsys.readouterr().out.startswith("Rank-1: 0.0 on average, at most 0.0")


def test_the_figures_lie_in_the_repository():
    assert FIGURES.is_relative_to(ROOT)
