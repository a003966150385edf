from __future__ import annotations

import json
import statistics

import pytest

from vireid_lightning.cli import vireid
from vireid_lightning.cli.tools.aggregate import aggregate_files
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.measures import MEASURES


def content(trial=1, mAP=50.0, **changes):
    scores = dict.fromkeys(MEASURES, 80.0) | {"mAP": mAP}
    rows = [
        {
            "protocol": name,
            "scores": scores,
            "distance": "euclidean",
            "reranking": None,
            "cmc": "image",
            "removal": "none",
            "embedding_size": 8,
        }
        for name in ("visible-to-infrared", "infrared-to-visible")
    ]
    whole = {"dataset": "RegDB", "method": "MPANet", "dataset_trial": trial, "unit": "percent", "results": rows}
    return (
        whole
        | {"fingerprint": f"f{trial}", "checkpoint": f"/runs/{trial}/last.ckpt", "checkpoint_kind": "last"}
        | changes
    )


@pytest.fixture
def write(tmp_path):
    def write(*contents):
        paths = []
        for number, part in enumerate(contents):
            paths.append(tmp_path / f"{number}.json")
            paths[-1].write_text(json.dumps(part))
        return [str(path) for path in paths]

    return write


def test_mean_and_deviation_over_trials(write, tmp_path, capsys):
    values = [50.0, 60.0, 61.0]
    paths = write(*(content(trial, value) for trial, value in zip((3, 1, 2), values)))
    vireid(["aggregate", *paths, "--output", str(tmp_path / "mean.json")])
    printed = capsys.readouterr().out
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    for text in ("RegDB: MPANet, n = 3 (trials 1, 2, 3)", f"{mean:.2f}", f"±{deviation:.2f}", "visible-to-infrared"):
        assert text in printed
    written = json.loads((tmp_path / "mean.json").read_text())
    assert written["n"] == 3
    assert [row["protocol"] for row in written["results"]] == ["visible-to-infrared", "infrared-to-visible"]
    assert written["results"][0]["scores"]["mAP"] == pytest.approx(mean)
    assert written["results"][0]["deviation"]["mAP"] == pytest.approx(deviation)
    assert written["results"][0]["deviation"]["rank1"] == 0


def test_seeds_of_a_dataset_without_trials(write):
    seeds = [content(None, 40.0 + n, dataset="SYSU-MM01", checkpoint=f"/{n}.ckpt", fingerprint="x") for n in range(2)]
    found = aggregate_files(write(*seeds))
    assert (found["n"], found["dataset_trials"], found["results"][0]["scores"]["mAP"]) == (2, None, 40.5)


def test_one_file_has_no_deviation(write):
    assert aggregate_files(write(content()))["results"][0]["deviation"]["mAP"] is None


def changed_row(**changes):
    whole = content(2)
    whole["results"][1] |= changes
    return whole


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (content(2, dataset="LLCM"), "dataset is 'RegDB' in the first and 'LLCM' in the second"),
        (content(2, method="AGW"), "method is 'MPANet'"),
        (content(2, trial_mismatch=True, trained_on_trial=1), "scores weights of trial 1 on trial 2"),
        (content(2, checkpoint_kind="best"), "checkpoint_kind is 'last' in the first and 'best'"),
        (content(2, checkpoint="/runs/1/last.ckpt"), "both of checkpoint /runs/1/last.ckpt"),
        (content(None), "names no trial"),
        (changed_row(distance="cosine"), "distance of infrared-to-visible is 'euclidean'"),
        (changed_row(reranking={"k1": 20}), "reranking of infrared-to-visible"),
        (changed_row(protocol="all"), "protocols is "),
        ([], "no result file"),
        ({"results": [{"protocol": "x", "scores": {}}], "dataset": "RegDB"}, "no result file"),
        (content(2, stage="aggregate"), "itself an aggregate"),
    ],
)
def test_refuses_what_does_not_belong_together(write, second, message):
    with pytest.raises(VIReIDError, match=message):
        aggregate_files(write(content(1), second))


def test_seeds_of_each_trial_count_where_all_have_as_many(write):
    runs = [content(trial, checkpoint=f"/{trial}-{seed}.ckpt") for trial in (1, 2) for seed in (0, 1)]
    found = aggregate_files(write(*runs))
    assert (found["n"], found["dataset_trials"]) == (4, [1, 2])
    with pytest.raises(VIReIDError, match=r"Trial 1 occurs 2 times and trial 2 1 times.*0.json, .*1.json"):
        aggregate_files(write(*runs[:3]))


def test_refuses_one_file_twice_missing_and_broken_files(write, tmp_path):
    path = write(content(None))[0]
    with pytest.raises(VIReIDError, match="both of file"):
        aggregate_files([path, path])
    with pytest.raises(VIReIDError, match="There is no result file"):
        aggregate_files([tmp_path / "none.json"])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(VIReIDError, match="cannot be read"):
        aggregate_files([tmp_path / "broken.json"])


def test_does_not_overwrite_unless_told_to(write, tmp_path, capsys):
    output = tmp_path / "mean.json"
    output.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        vireid(["aggregate", *write(content()), "--output", str(output)])
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    vireid(["aggregate", *write(content()), "--output", str(output), "--overwrite"])
    assert json.loads(output.read_text())["n"] == 1
