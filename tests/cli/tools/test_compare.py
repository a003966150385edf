"""``vireid compare`` against files made by hand: means, names, marks, what it refuses, and what each format escapes."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest

from vireid_lightning.cli import vireid
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import compare
from vireid_lightning.metrics.comparison import ComparedRow, Comparison
from vireid_lightning.metrics.comparison_formats import FORMATS, escape_latex

NAMES = ("visible-to-infrared", "infrared-to-visible")


def content(method="AGW", rank1=80.0, mAP=50.0, trial=1, **changes):
    rows = [
        {
            "protocol": name,
            "scores": {"rank1": rank1 + number, "mAP": mAP + number, "mINP": 10.0},
            **{"distance": "cosine", "reranking": None, "cmc": "image", "removal": "none", "embedding_size": 8},
            **{"trials": 1, "queries": 4, "valid_queries": 4, "gallery_hash": f"{name[0]}{trial}"},
        }
        for number, name in enumerate(NAMES)
    ]
    about = {"stage": "test", "dataset": "RegDB", "method": method, "dataset_trial": trial, "checkpoint_kind": "last"}
    return {**about, "unit": "percent", "fingerprint": f"f{trial}", "results": rows, **changes}


def re_ranked(whole, k1=20):
    rows = [
        {
            **row,
            "protocol": f"{row['protocol']} (re-ranked)",
            "reranking": {"k1": k1},
            "scores": {"rank1": 90, "mAP": 70},
        }
        for row in whole["results"]
    ]
    return whole | {"results": whole["results"] + rows}


def changed_row(whole, **changes):
    return whole | {"results": [whole["results"][0] | changes, whole["results"][1]]}


@pytest.fixture
def write(tmp_path):
    def write(*contents):
        paths = []
        for number, part in enumerate(contents):
            paths.append(tmp_path / f"{number}.json")
            paths[-1].write_text(json.dumps(part))
        return [str(path) for path in paths]

    return write


@pytest.fixture
def quoted(tmp_path):
    def quoted(text):
        (tmp_path / "quoted.csv").write_text(text, encoding="utf-8")
        return tmp_path / "quoted.csv"

    return quoted


def test_rows_are_methods_with_mean_and_deviation_over_their_runs(write):
    values = [50.0, 53.0, 55.0]
    runs = [content("AGW", mAP=value, trial=trial) for trial, value in enumerate(values, 1)]
    found = compare(write(*runs, content("MPANet", trial=2, mAP=61.0)))
    assert (found.dataset, found.protocols, found.measures) == ("RegDB", NAMES, ("rank1", "mAP"))
    agw, mpanet = found.rows
    assert (agw.label, agw.runs, agw.trials) == ("AGW", 3, (1, 2, 3))
    assert agw.scores[NAMES[0], "mAP"] == pytest.approx(statistics.fmean(values))
    assert agw.deviations[NAMES[0], "mAP"] == pytest.approx(statistics.stdev(values))
    assert (mpanet.runs, mpanet.scores[NAMES[1], "mAP"]) == (1, 62.0)
    assert mpanet.deviations[NAMES[1], "mAP"] is None


def test_what_differs_within_a_method_is_a_row_of_its_own_and_named(write):
    found = compare(
        write(
            content(backbone="resnet18", training={"weights": "random", "seed": 0}),
            content(backbone="resnet18", trial=2, training={"weights": "random", "seed": 1}),
            content(backbone="resnet50", image_size=[384, 128], training={"weights": "random"}),
            content("CMAM", checkpoint_kind="best"),
        )
    )
    assert [row.label for row in found.rows] == ["AGW, resnet18, no image_size", "AGW, resnet50, 384 x 128", "CMAM"]
    assert [row.runs for row in found.rows] == [2, 1, 1]


def test_marks(write, quoted):
    files = write(
        re_ranked(content()),
        content("MPANet", trial_mismatch=True, trained_on_trial=2),
        content("CMAM", preprocessing_mismatch=True),
        content("DCLNet", stage="validate"),
    )
    found = compare(files, quoted=quoted("method,protocol,rank1,mAP\nTheirs,visible-to-infrared,70,\n"))
    assert [row.label for row in found.rows] == [
        "AGW",
        "AGW (re-ranked)",
        "MPANet (trial mismatch)",
        "CMAM (preprocessing mismatch)",
        "DCLNet (validation)",
        "Theirs (quoted)",
    ]
    assert found.rows[1].scores[NAMES[0], "mAP"] == 70
    assert found.rows[-1].scores == {(NAMES[0], "rank1"): 70.0}
    assert compare(write(content(synthetic=True))).rows[0].label == "AGW (synthetic)"
    both = compare(write(re_ranked(content()), re_ranked(content(), 30)))
    assert [row.label for row in both.rows[1:]] == ["AGW, k1=20 (re-ranked)", "AGW, k1=30 (re-ranked)"]


def test_a_name_of_ones_own(write):
    first, second = write(content(), content("AGW", mAP=60))
    found = compare([first, f"Ours={second}"])
    assert [row.label for row in found.rows] == ["AGW", "Ours"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (content(dataset="LLCM"), "dataset is 'RegDB' in the first and 'LLCM' in the second"),
        (changed_row(content("B"), gallery_hash="other"), "gallery_hash of visible-to-infrared is 'v1'"),
        (changed_row(content("B"), valid_queries=3), "valid_queries of visible-to-infrared is '4'"),
        (changed_row(content("B"), cmc="identity"), "cmc of visible-to-infrared is 'image'"),
        (changed_row(content("B"), protocol="all"), "choose some that all have with --protocols"),
        (content("B", synthetic=True), "synthetic .*is 'False' in the first and 'True'"),
        (content(trial=1, checkpoint="/a.ckpt", checkpoint_kind="last"), "both of checkpoint /a.ckpt"),
        (content(trial=None), "names no trial|gallery_hash"),
        (content("B") | {"results": "all"}, "'results' is the text 'all'"),
    ],
)
def test_what_cannot_be_compared_is_refused(write, second, message):
    first = content(synthetic=False, checkpoint="/a.ckpt")
    with pytest.raises(VIReIDError, match=message):
        compare(write(first, second))


def test_protocols_and_measures_are_chosen(write):
    files = write(content(), changed_row(content("B"), protocol="all"))
    found = compare(files, protocols=["infrared-to-visible"], measures=["mINP"])
    assert [row.scores for row in found.rows] == [{("infrared-to-visible", "mINP"): 10.0}] * 2
    with pytest.raises(VIReIDError, match=r"1.json has no protocol 'visible-to-infrared', only all, infrared-to-vis"):
        compare(files, protocols=["visible-to-infrared"])
    with pytest.raises(VIReIDError, match=r"has no measure 'map' .* Did you mean 'mAP'"):
        compare(files[:1], measures=["map"])
    for nothing in ({"measures": []}, {"results": []}):
        with pytest.raises(VIReIDError, match="There is no"):
            compare(**{"results": files[:1], **nothing})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns none"),
        ("method,protocol,rank1\n", "needs 'method', 'protocol' and rank1, mAP"),
        ("method,protocol,rank1,mAP,mAP\n", "each once"),
        ("method,protocol,rank1,mAP\nA,visible-to-infrared,1\n", "row 2: it has another number of values"),
        ("method,protocol,rank1,mAP\nA,visible-to-infrared,1,2,3\n", "row 2: it has another number of values"),
        ("method,protocol,rank1,mAP\nA,visible,1,2\n", "row 2: 'visible' is none of the compared protocols"),
        ("method,protocol,rank1,mAP\n ,visible-to-infrared,1,2\n", "row 2: the method has no name"),
        ("method,protocol,rank1,mAP\nA,visible-to-infrared,x,2\n", "row 2: rank1 is 'x'"),
        ("method,protocol,rank1,mAP\nA,visible-to-infrared,nan,2\n", "row 2: rank1 is 'nan'"),
        ("method,protocol,rank1,mAP\nA,visible-to-infrared,1,200\n", "row 2: mAP is '200'"),
        (2 * "method,protocol,rank1,mAP\nA,visible-to-infrared,1,2\n", "row 3: 'protocol' is none"),
        ("method,protocol,rank1,mAP" + 2 * "\nA,visible-to-infrared,1,2", "row 3: A has two values of rank1"),
        ('method,protocol,rank1,mAP\n"A,visible', "cannot be read as a CSV file"),
        (None, "There is no file"),
    ],
)
def test_quoted_numbers_are_checked(write, quoted, tmp_path, text, message):
    path = tmp_path / "none.csv" if text is None else quoted(text)
    with pytest.raises(VIReIDError, match=message):
        compare(write(content()), quoted=path)


@pytest.fixture
def hard(write, quoted):
    """Names with everything that a format takes for its own."""
    name = 'A & B_1 | 100% #2, "x" {y} \\z ~ ^ $'
    runs = write(content(trial=1), content(trial=2, mAP=53.0))
    row = f'"{name.replace(chr(34), 2 * chr(34))}",visible-to-infrared,70.5,60\n'
    return name, compare(runs, quoted=quoted(f"method,protocol,rank1,mAP\n{row}"))


def test_latex(hard):
    _, found = hard
    text = FORMATS["latex"](found)
    escaped = (
        r"""A \& B\_1 \textbar{} 100\% \#2, "x" \{y\} \textbackslash{}z"""
        r" \textasciitilde{} \textasciicircum{} \$ (quoted)"
    )
    lines = text.splitlines()
    assert lines[2:8] == [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r" & & \multicolumn{2}{c}{visible-to-infrared} & \multicolumn{2}{c}{infrared-to-visible} \\",
        r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}",
        r"Method & Runs & Rank-1 & mAP & Rank-1 & mAP \\",
        r"\midrule",
    ]
    assert lines[8] == r"AGW & 2 & 80.00 $\pm$ 0.00 & 51.50 $\pm$ 2.12 & 81.00 $\pm$ 0.00 & 52.50 $\pm$ 2.12 \\"
    assert lines[9] == rf"{escaped} & -- & 70.50 & 60.00 & -- & -- \\"
    assert lines[10:] == [r"\bottomrule", r"\end{tabular}"]
    assert escape_latex("a\nb") == "a b"


def test_csv_is_read_back(hard):
    name, found = hard
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](found))))
    assert [(row["method"], row["marks"], row["runs"], row["protocol"]) for row in rows] == [
        ("AGW", "", "2", NAMES[0]),
        ("AGW", "", "2", NAMES[1]),
        (name, "quoted", "", NAMES[0]),
        (name, "quoted", "", NAMES[1]),
    ]
    assert float(rows[0]["mAP"]) == 51.5
    assert float(rows[0]["mAP_deviation"]) == statistics.stdev([50, 53])
    assert (rows[2]["rank1"], rows[2]["rank1_deviation"], rows[3]["rank1"]) == ("70.5", "", "")


def test_csv_keeps_a_lone_carriage_return():
    row = ComparedRow("A\rB", (), 1, (), {("all", "mAP"): 1.0}, {})
    text = FORMATS["csv"](Comparison("Mine", ("all",), ("mAP",), (row,)))
    assert '"A\rB"' in text
    assert next(csv.DictReader(io.StringIO(text, newline="")))["method"] == "A\rB"


def test_markdown(hard):
    _, found = hard
    heading, rule, agw, theirs, *rest = FORMATS["markdown"](found).splitlines()
    assert heading.startswith("| Method | Runs | visible-to-infrared Rank-1 | visible-to-infrared mAP |")
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert agw == "| AGW | 2 | 80.00 ± 0.00 | 51.50 ± 2.12 | 81.00 ± 0.00 | 52.50 ± 2.12 |"
    assert theirs.replace("\\|", "").count("|") == 7
    assert r"A & B\_1 \| 100% #2" in theirs
    assert rest[-1] == "RegDB. Per cent; ± sample standard deviation over runs; trials 1, 2."


def test_the_command_fits_80_columns_and_writes_files(write, tmp_path, capsys, monkeypatch):
    from rich.console import Console

    from vireid_lightning.metrics import terminal

    monkeypatch.setattr(terminal, "choose_console", lambda: Console(width=80))
    rows = content()["results"]
    many = [{**rows[0], "protocol": f"{name}/single/official"} for name in ("all", "indoor", "outdoor", "night", "day")]
    files = write(content() | {"results": many}, content("B" * 60) | {"results": many})
    vireid(["compare", *files])
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert printed.count("80.00") == printed.count("50.00") == 10
    output = tmp_path / "table.tex"
    vireid(["compare", *files, "--format", "latex", "--output", str(output)])
    assert output.read_text().endswith("\\end{tabular}\n")
    with pytest.raises(SystemExit) as stop:
        vireid(["compare", *files, "--output", str(output)])
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    vireid(["compare", *files, "--output", str(output), "--overwrite"])
    assert "50.00" in output.read_text()
