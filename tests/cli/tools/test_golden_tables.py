"""Whole tables of ``vireid evaluate`` against slow loops over galleries that are made from the index files alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from layout_files import write
from references import tables
from references.ranking import score_queries

from vireid_lightning.cli import vireid
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm02

SIZE = 16


@pytest.fixture
def sysu_mm01(shared_data, tmp_path):
    shutil.copytree(shared_data / "sysu_mm01" / "exp", tmp_path / "exp")
    return ["SYSUMM01", tmp_path], tables.sysu_mm01(tmp_path)


@pytest.fixture
def regdb(shared_data, tmp_path):
    shutil.copytree(shared_data / "regdb" / "idx", tmp_path / "idx")
    return ["RegDB", tmp_path, "--trial", 7], tables.regdb(tmp_path, 7)


@pytest.fixture
def llcm(tmp_path):
    identities = list(range(1, 715, 2))[:351]
    write(tmp_path / "idx/test_id.txt", ",".join(map(str, identities)))
    for word in ("vis", "nir"):
        write(tmp_path / f"idx/train_{word}.txt", f"{word}/0002/0002_c01_s000001_f00001_{word}.jpg 0\n")
    return ["LLCM", tmp_path], tables.llcm(identities)


@pytest.fixture
def sysu_mm02(tmp_path):
    for name, content in plan_sysu_mm02(train=1, test=118, images_per_camera=20).index_files.items():
        write(tmp_path / name, content)
    return ["SYSUMM02", tmp_path], tables.sysu_mm02(tmp_path)


@pytest.fixture
def manifest(tmp_path):
    """Both modalities in both sets, cameras that see both, some unknown."""
    draw = np.random.default_rng(0)
    images, sides = [], []
    lines = ["path,identity,modality,camera,split", "t.jpg,900,visible,1,train"]
    for number in range(600):
        identity, modality, camera = int(draw.integers(40)), int(draw.integers(2)), int(draw.integers(-1, 3))
        images.append((f"images/{number:04d}.jpg", identity, modality, camera))
        sides.append(("query", "gallery")[int(draw.integers(2))])
        words = (f"{identity}", ("rgb", "thermal")[modality], "" if camera < 0 else str(camera), sides[-1])
        lines.append(",".join((images[-1][0], *words)))
    path = write(tmp_path / "manifest.csv", "\n".join(lines))
    rows = {}
    for name, asked in tables.BOTH.items():
        query, gallery = (
            np.array([n for n, image in enumerate(images) if (sides[n], image[2]) == wanted])
            for wanted in (("query", asked), ("gallery", 1 - asked))
        )
        rows[name] = (query, [gallery], "same-camera", "image")
    return ["Manifest", path], (images, rows)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["sysu_mm01", "regdb", "llcm", "sysu_mm02", "manifest"])
def test_every_row_equals_the_slow_loop(benchmark, request, tmp_path, capsys):
    (dataset, root, *options), (images, rows) = request.getfixturevalue(benchmark)
    identity, modality, camera = (np.array([image[field] for image in images]) for field in (1, 2, 3))
    embedding = whole_numbers(identity, camera + 3 * modality)
    arrays = {"embedding": embedding, "identity": identity, "camera": camera, "modality": modality}
    np.savez(tmp_path / "embeddings.npz", **arrays, path=np.array([image[0] for image in images]))
    options = [*map(str, options), "--metric", "euclidean", "--output", str(tmp_path / "results.json")]
    vireid(["evaluate", str(tmp_path / "embeddings.npz"), "--dataset", dataset, "--root", str(root), *options])
    assert "Results" in capsys.readouterr().out
    found = {row["protocol"]: row for row in json.loads((tmp_path / "results.json").read_text())["results"]}
    assert set(found) == set(rows)
    exact = embedding.astype(np.float64)
    for name, (query, galleries, removal, cmc) in rows.items():
        row = found[name]
        assert (row["trials"], row["removal"], row["cmc"]) == (len(galleries), removal, cmc)
        assert row["direction"] == name if benchmark != "sysu_mm01" else row["direction"] == "infrared-to-visible"
        assert row["sampling"] in ("official", "seeded", "all", "as listed")
        trial = len(galleries) - 1  # one is enough for the slow loop: the rows of the others differ in the draw alone
        gallery = galleries[trial]
        distance = (exact[gallery] ** 2).sum(axis=1) - 2 * exact[query] @ exact[gallery].T
        first, average_precision, inverse_negative_penalty = score_queries(
            distance, identity[query], identity[gallery], camera[query], camera[gallery], removal, cmc
        )
        matched = first > 0
        expected = {f"rank{rank}": (first[matched] <= rank).mean() for rank in (1, 5, 10, 20)}
        expected |= {"mAP": average_precision[matched].mean(), "mINP": inverse_negative_penalty[matched].mean()}
        assert 0.05 < expected["rank1"] < 0.95  # neither chance nor all right: an error would show
        # Distances are whole numbers below 2^24, so exact in float32, ties too. A precision is a quotient in
        # float32, off by at most 2^-24 of itself.
        for score, value in expected.items():
            assert row["trial_scores"][trial][score] == pytest.approx(100 * value, rel=2**-23), (name, trial, score)
        sizes = (row[key] if isinstance(row[key], int) else row[key][trial] for key in ("queries", "valid_queries"))
        assert tuple(sizes) == (len(query), int(matched.sum()))


def whole_numbers(identity, place):
    """Embeddings of whole numbers: an identity's direction, a place's shift and noise."""
    draw = np.random.default_rng(0)
    parts = ((identity, 60), (place - place.min(), 30), (np.arange(len(identity)), 60))
    return sum(
        draw.integers(-limit, limit + 1, (index.max() + 1, SIZE))[index].astype(np.float32) for index, limit in parts
    )
