"""A new dataset is one file: the tools and the training take all that they need to know of it from its class."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest
from layout_files import write, write_plan

import vireid_lightning
from vireid_lightning import data
from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data import ReIDDataset
from vireid_lightning.data.datasets.visible_only import VisibleOnlyDataset
from vireid_lightning.data.synthetic.layouts import LayoutPlan, PlannedImage

#: A dataset as a user writes one, with an index file that lists what its folders should hold.
FILE = '''
"""My campus: root/{train,test}/{identity}/{rgb,ir}_{number}.jpg, and root/images.txt with all paths."""

from vireid_lightning.data import INFRARED, VISIBLE, PublishedSplit, ReIDDataset, Sample
from vireid_lightning.data.datasets.folders import list_folder, list_images
from vireid_lightning.data.datasets.index_files import read_text
from vireid_lightning.data.datasets.protocol_building import build_all_against_all


class MyDataset(ReIDDataset):
    """Images of my campus."""

    name = "Campus"
    default_protocol = "infrared-to-visible"
    listed_in = "images.txt"
    check_options = {"nights": "apart"}
    published = {
        "train": PublishedSplit(4, {(VISIBLE, 1): 8, (INFRARED, 2): 8}),
        "test": PublishedSplit(3, {(VISIBLE, 1): 6, (INFRARED, 2): 6}),
    }

    def __init__(self, root, nights="together"):
        super().__init__(root)
        self.nights = nights
        self.all = [self._parse(path) for path in read_text(self.name, self.root / "images.txt").splitlines()]

    def _parse(self, path):
        _, identity, name = path.split("/")
        modality = VISIBLE if name.startswith("rgb") else INFRARED
        return Sample(path, int(identity), modality, 1 + modality)

    def identities(self, split):
        return sorted({sample.identity for sample in self.listed(split)})

    def samples(self, split):
        part = "train" if split == "train" else "test"
        return [
            self._parse(f"{part}/{folder.name}/{name}")
            for folder in list_folder(self.root / part)
            for name in list_images(self.root / part / folder.name)
        ]

    def protocols(self, samples, split="test"):
        return build_all_against_all(self.name, samples, self.listed(split), cmc="image")

    def listed(self, split):
        return [sample for sample in self.all if sample.path.startswith("train") == (split == "train")]


class Unfinished(ReIDDataset):
    """Without a protocol."""

    name = "Unfinished"


class Demanding(MyDataset):
    """With an argument that no tool knows."""

    def __init__(self, root, key):
        super().__init__(root)


class Nightless(MyDataset):
    """Takes fewer arguments than what it is derived from."""

    def __init__(self, root):
        super().__init__(root)


class Watched(MyDataset):
    """Tells how a tool opens it."""

    def __init__(self, root, nights="together"):
        super().__init__(root, nights)
        if nights == "apart":
            raise RuntimeError("opened with check_options")


LIMIT = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with the user's file and their images."""
    images = [
        PlannedImage(f"{part}/{identity:02d}/{word}_{number}.jpg", identity, identity, modality, 1 + modality, number)
        for part, identities in (("train", range(4)), ("test", range(4, 7)))
        for identity in identities
        for modality, word in enumerate(("rgb", "ir"))
        for number in range(2)
    ]
    listing = "\n".join(sorted(image.path for image in images))
    write_plan(LayoutPlan("campus", images, {"images.txt": listing.encode()}), tmp_path / "campus")
    write(tmp_path / "my_data.py", FILE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    sys.modules.pop("my_data", None)  # another test's file may have had this name
    yield tmp_path
    assert sys.path == before
    sys.modules.pop("my_data", None)


def report(capsys, *arguments: str) -> tuple[int, dict]:
    """Run ``check-dataset``; return its exit code and report."""
    try:
        vireid(["check-dataset", *arguments, "--json"])
        code = 0
    except SystemExit as end:
        code = end.code
    return code, json.loads(capsys.readouterr().out)


def test_check_dataset_holds_it_against_its_own_published_counts(folder, capsys):
    code, found = report(capsys, "my_data.MyDataset", "campus")
    assert (code, found["dataset"], found["faults"], found["notes"]) == (0, "Campus", [], [])
    counted = {(row["split"], row["what"], row["camera"], row["expected"], row["found"]) for row in found["counts"]}
    assert counted == {
        ("train", "identities", None, 4, 4),
        ("train", "visible", 1, 8, 8),
        ("train", "infrared", 2, 8, 8),
        ("test", "identities", None, 3, 3),
        ("test", "visible", 1, 6, 6),
        ("test", "infrared", 2, 6, 6),
    }


def test_check_dataset_compares_folders_and_index_file(folder, capsys):
    Path("campus/test/05/ir_1.jpg").unlink()
    shutil.copy("campus/train/00/rgb_0.jpg", "campus/train/00/rgb_7.jpg")
    code, found = report(capsys, "my_data.MyDataset", "campus")
    assert code == 1
    assert [fault["problem"] for fault in found["faults"]] == [
        "The split train has 9 visible images of camera 1 where 8 are expected.",
        "The split test has 5 infrared images of camera 2 where 6 are expected.",
        "Unknown train images that images.txt does not list, 1: train/00/rgb_7.jpg.",
        "Missing test images that images.txt lists, 1: test/05/ir_1.jpg.",
    ]


def test_a_stand_in_is_held_against_its_own_index_file(folder, capsys):
    """A fifth of the published identities is no damaged copy."""
    write(folder / "my_data.py", FILE.replace("PublishedSplit(4,", "PublishedSplit(20,"))
    code, found = report(capsys, "my_data.MyDataset", "campus")
    assert (code, found["faults"]) == (0, [])
    assert "4 train identities instead of 20" in found["notes"][0]
    assert {row["expected"] for row in found["counts"] if row["what"] == "visible"} == {8, 6}


def test_check_dataset_opens_it_with_its_check_options(folder):
    with pytest.raises(RuntimeError, match="opened with check_options"):
        vireid(["check-dataset", "my_data.Watched", "campus", "--traceback"])
    vireid(["check-dataset", "my_data.Nightless", "campus"])


@pytest.mark.slow
def test_it_trains_predicts_and_is_evaluated(folder, capsys):
    tiny = [
        "--model=Baseline",
        "--model.backbone=test_resnet",
        "--model.pretrained=false",
        "--data.dataset=my_data.MyDataset",
        "--data.dataset.root=campus",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.logger=false",
    ]
    lightning(["fit", *tiny, "--trainer.max_epochs=1"])
    (checkpoint,) = folder.glob("**/last.ckpt")
    tested = json.loads((checkpoint.parent / "results.json").read_text(encoding="utf-8"))
    assert [row["protocol"] for row in tested["results"]] == ["visible-to-infrared", "infrared-to-visible"]
    lightning(["predict", *tiny, f"--ckpt_path={checkpoint}"])
    (embeddings,) = folder.glob("**/embeddings.npz")
    arguments = [str(embeddings), "--dataset", "my_data.MyDataset", "--root", "campus", "--output", "scores.json"]
    vireid(["evaluate", *arguments])
    scored = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    assert scored["dataset"] == tested["dataset"] == "Campus"
    for one, other in zip(tested["results"], scored["results"], strict=True):
        assert one["scores"] == other["scores"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_dat.MyDataset", "There is no module 'my_dat' for 'my_dat.MyDataset'"),
        ("my_data.MyDatset", "has no class 'MyDatset'. Did you mean 'MyDataset'?"),
        ("my_data.LIMIT", "'my_data.LIMIT' is no ReIDDataset"),
        ("my_data.Sample", "'my_data.Sample' is no ReIDDataset"),
        ("my_data.Unfinished", "does not implement identities, protocols, samples"),
        ("my_data.Demanding", "Demanding needs key; give --set key=VALUE"),
        ("MyDataset", "There is no dataset 'MyDataset'; the datasets are LLCM, MSMT17, Manifest,"),
        ("Synthetic", "name the dataset whose layout they have, SYSUMM01, with that folder as the root"),
        ("vireid_lightning.data.Synthetic", "name the dataset whose layout they have, SYSUMM01"),
    ],
)
def test_what_is_no_dataset_is_told_in_one_sentence(folder, capsys, name, message):
    with pytest.raises(SystemExit) as end:
        vireid(["check-dataset", name, "campus"])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_the_help_names_every_exported_dataset(capsys):
    with pytest.raises(SystemExit):
        vireid(["check-dataset", "--help"])
    text = capsys.readouterr().out
    exported = {name for name in data.__all__ if isinstance(getattr(data, name), type)}
    names = {name for name in exported if issubclass(getattr(data, name), ReIDDataset)} - {"ReIDDataset", "Synthetic"}
    assert len(names) >= 7
    assert all(name in text for name in names)


def test_shared_code_imports_no_dataset():
    """What a dataset is like stands in its own file, so that nothing else changes with a new one."""
    package = Path(vireid_lightning.__file__).parent
    kinds = [kind for kind in vars(data).values() if isinstance(kind, type) and issubclass(kind, ReIDDataset)]
    own = {kind.__module__ for kind in kinds} - {ReIDDataset.__module__, VisibleOnlyDataset.__module__}
    assert len(own) >= 8
    shared = [*(package / "data/datasets").glob("*.py"), package / "cli/datasets.py"]
    shared.append(package / "cli/tools/check_dataset.py")
    for path in shared:
        module = "vireid_lightning." + ".".join(path.relative_to(package).with_suffix("").parts)
        if module in own:
            continue
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not imported & own, path
