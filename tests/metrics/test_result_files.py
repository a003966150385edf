"""Result files are read with a schema: whatever one holds, the error is a sentence that names the file and the key."""

from __future__ import annotations

import copy
import json
import os

import pytest

from vireid_lightning.cli import vireid
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import evaluate
from vireid_lightning.metrics.measures import MEASURES
from vireid_lightning.metrics.result_files import FORMAT, check_about, read_result_file
from vireid_lightning.metrics.results import ScoreTable, write_results


def good() -> dict:
    scores = dict.fromkeys(MEASURES, 50.0)
    row = {"protocol": "all", "scores": scores, "deviation": scores, "trials": 2, "trial_scores": [scores, scores]}
    row |= {"queries": [3, 4], "valid_queries": 3, "gallery_images": 9, "gallery_hash": "0a", "reranking": {"k1": 20}}
    return {
        "format": FORMAT,
        "vireid_lightning": "0.1.0",
        "stage": "test",
        "dataset": "RegDB",
        "dataset_trial": 1,
        "method": "AGW",
        "unit": "percent",
        "results": [row],
    }


def changed(*keys, value):
    content = copy.deepcopy(good())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(content)


def without(*keys):
    content = copy.deepcopy(good())
    place = content
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return json.dumps(content)


SCORE = ("results", 0, "scores", "mAP")
HOSTILE = {
    "an empty file": ("", "cannot be read as a result file"),
    "cut short": (json.dumps(good())[:-20], "cannot be read as a result file"),
    "no UTF-8": (b"\xff\xfe{", "cannot be read as a result file"),
    "a list": ("[]", "holds an empty list instead of an object"),
    "a text": ('"results"', "holds the text 'results' instead of an object"),
    "a number": ("3", "holds 3 instead of an object"),
    "null": ("null", "holds null instead of an object"),
    "deep lists": ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
    "deep objects": ('{"a":' * 200_000 + "1" + "}" * 200_000, "nested too deeply"),
    "a later format": (changed("format", value=2), "is in format 2, written by vireid-lightning 0.1.0"),
    "a text for the format": (changed("format", value="1"), "is in format 1, written"),
    "true for the format": (changed("format", value=True), "is in format True"),
    "an aggregate": (changed("stage", value="aggregate"), "is itself an aggregate"),
    "no results": (without("results"), "lacks 'results'"),
    "no dataset": (without("dataset"), "lacks 'dataset'"),
    "a list for the dataset": (changed("dataset", value=["RegDB"]), "'dataset' is a list instead of a text"),
    "no rows": (changed("results", value=[]), "'results' is an empty list instead of a list with at least one entry"),
    "an object for rows": (changed("results", value={}), r"'results' is an object instead of a list"),
    "a row that is a text": (changed("results", value=["all"]), r"'results\[0\]' is the text 'all' instead of an obj"),
    "no protocol": (without("results", 0, "protocol"), r"lacks 'results\[0\].protocol'"),
    "no scores": (without("results", 0, "scores"), r"lacks 'results\[0\].scores'"),
    "a list for scores": (changed("results", 0, "scores", value=[1]), r"'results\[0\].scores' is a list"),
    "no mAP": (without(*SCORE), r"lacks 'results\[0\].scores.mAP'"),
    "NaN": (changed(*SCORE, value=float("nan")), "holds NaN, which is no number of JSON"),
    "infinity": (changed(*SCORE, value=float("inf")), "holds Infinity, which is no number of JSON"),
    "infinity as a number": (changed(*SCORE, value=0).replace('"mAP": 0', '"mAP": 1e999'), "mAP' is inf instead of"),
    "a text for a score": (changed(*SCORE, value="50"), r"scores.mAP' is the text '50' instead of a number from 0"),
    "null for a score": (changed(*SCORE, value=None), "scores.mAP' is null instead of a number"),
    "true for a score": (changed(*SCORE, value=True), "scores.mAP' is true instead of a number"),
    "a list for a score": (changed(*SCORE, value=[50]), "scores.mAP' is a list instead of a number"),
    "a score below 0": (changed(*SCORE, value=-1), "scores.mAP' is -1 instead of a number from 0 to 100"),
    "a score above 100": (changed(*SCORE, value=101.5), "scores.mAP' is 101.5 instead of a number from 0 to 100"),
    "a number of 400 digits": (changed(*SCORE, value=10**400), "mAP' is 10000.* instead of a number from 0"),
    "a number of 5000 digits": ('{"dataset": ' + "9" * 5000 + "}", "is a result file|cannot be read|'dataset' is"),
    "a list for a method": (changed("method", value=["AGW"]), "'method' is a list instead of a text"),
    "a list for a checkpoint": (changed("checkpoint", value=[]), "'checkpoint' is an empty list instead of a text"),
    "a text for a trial": (changed("dataset_trial", value="1"), "'dataset_trial' is the text '1' instead of a whole"),
    "half a trial": (changed("dataset_trial", value=1.5), "'dataset_trial' is 1.5 instead of a whole number"),
    "a text for a mismatch": (changed("trial_mismatch", value="no"), "'trial_mismatch' is the text 'no' instead of tr"),
    "another unit": (changed("unit", value="fraction"), "'unit' is the text 'fraction' instead of 'percent'"),
    "a list for re-ranking": (changed("results", 0, "reranking", value=[]), "reranking' is an empty list"),
    "a text for counts": (changed("results", 0, "queries", value=[3, "4"]), r"queries\[1\]' is the text '4'"),
    "a list for training": (changed("training", value=[]), "'training' is an empty list instead of an object"),
    "a text for the seed": (changed("training", value={"seed": "0"}), "'training.seed' is the text '0'"),
    "a protocol twice": (changed("results", value=good()["results"] * 2), "has two rows of the protocol 'all'"),
    "a key twice": ('{"dataset": "A", "dataset": "B"}', "the key 'dataset' occurs twice"),
    "line breaks in a value": (changed("unit", value="a\n\x1b[31m" + 99 * "b"), "'unit' is the text 'a"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_sentence(case, tmp_path, capsys):
    content, message = HOSTILE[case]
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VIReIDError, match=message) as error:
        read_result_file(path)
    assert str(path) in str(error.value)
    with pytest.raises(SystemExit) as stop:
        vireid(["aggregate", str(path)])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert len(told) < 500
    assert told.rstrip("\n").isprintable()


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(VIReIDError, match=r"There is no result file .*: it does not exist"):
        read_result_file(tmp_path / "none.json")
    with pytest.raises(VIReIDError, match=r"is a folder; give the results\.json in it"):
        read_result_file(tmp_path)
    with pytest.raises(VIReIDError, match="is no regular file"):
        read_result_file(os.devnull)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(VIReIDError, match="has 1024 MiB, which no result file has"):
        read_result_file(large)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(VIReIDError, match="is no regular file"):
            read_result_file(tmp_path / "pipe.json")


def test_what_is_written_is_read(tmp_path):
    import torch

    scored = evaluate((torch.eye(3), [4, 5, 6]), (torch.eye(3), [4, 5, 6]))
    table = ScoreTable([scored], {"dataset": "mine", "method": None, "dataset_trial": None})
    write_results(tmp_path / "results.json", table.to_dict())
    assert read_result_file(tmp_path / "results.json") == json.loads((tmp_path / "results.json").read_text())
    # As an editor may leave it, and as a version may have written it that knew fewer keys.
    (tmp_path / "mark.json").write_text(json.dumps(good()), encoding="utf-8-sig")
    assert read_result_file(tmp_path / "mark.json") == good()
    few = {"dataset": "RegDB", "results": [{"protocol": "all", "scores": {"rank1": 1, "mAP": 100.0}}]}
    (tmp_path / "few.json").write_text(json.dumps(few))
    assert read_result_file(tmp_path / "few.json") == few


def test_what_saved_embeddings_say_is_checked():
    check_about("embeddings.npz", {"method": "AGW", "epoch": 3, "more": object()})
    with pytest.raises(VIReIDError, match=r"embeddings.npz: 'about.epoch' is the text 'three' instead of a whole"):
        check_about("embeddings.npz", {"epoch": "three"})
