"""What a checkpoint says of its images against what the data does with its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vireid_lightning.callbacks.preprocessing import find_mismatch
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK

HERE = {
    "image_size": [384, 128],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
    "resizer": "pillow",
}
FORMER = {name: value for name, value in HERE.items() if name != "resizer"}


def find(stored, here=HERE, *, allow=False, **block):
    checkpoint = {BLOCK: {"identities": [1, 2], "preprocessing": stored, **block}}
    return find_mismatch("a.ckpt", checkpoint, SimpleNamespace(preprocessing=here), allow=allow)


def refuse(*arguments):
    assert find(*arguments, allow=True)
    with pytest.raises(VIReIDError) as caught:
        find(*arguments)
    return str(caught.value)


def test_the_same_preparation_fits():
    assert not find(HERE)
    assert not find(HERE, allow=True)


def test_each_difference_is_named_with_both_values_and_the_mend():
    message = refuse({**HERE, "image_size": [288, 144], "interpolation": "lanczos"})
    assert message == (
        "a.ckpt was trained on images with image_size [288, 144], interpolation lanczos, but the data's have "
        'image_size [384, 128], interpolation bilinear; set --data.image_size "[288, 144]" --data.interpolation '
        '"lanczos", or give --allow-preprocessing-mismatch to score it all the same, marked as such.'
    )
    message = refuse({**HERE, "image_size": [288, 144]})
    assert "interpolation" not in message
    message = refuse({**HERE, "mean": [0.5, 0.5, 0.5]})
    assert "mean [0.5, 0.5, 0.5], but the data's have mean [0.485, 0.456, 0.406]" in message
    assert "--data." not in message


def test_a_setting_that_only_one_side_knows_is_a_difference():
    assert "gamma 2" in refuse({**HERE, "gamma": 2})
    assert "gamma None" in refuse(HERE, {**HERE, "gamma": 2})
    assert not find(HERE, {**HERE, "gamma": None})


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "area", "lanczos"])
def test_a_checkpoint_without_a_resizer_is_of_opencv(name):
    former = {**FORMER, "interpolation": name}
    message = refuse(former, {**HERE, "interpolation": "bicubic" if name == "area" else name})
    assert f'--data.interpolation "opencv-{name}"' in message
    assert "OpenCV" in message
    assert not find(former, {**HERE, "interpolation": f"opencv-{name}", "resizer": "opencv"})


def test_weights_of_the_former_importer_are_to_be_imported_again():
    checkpoint = {BLOCK: {"preprocessing": FORMER}}
    for here in (HERE, {**HERE, "interpolation": "opencv-bilinear", "resizer": "opencv"}):
        data = SimpleNamespace(preprocessing=here)
        with pytest.raises(VIReIDError, match="import them again"):
            find_mismatch("a.ckpt", checkpoint, data, allow=False)
        assert find_mismatch("a.ckpt", checkpoint, data, allow=True)


def test_what_says_nothing_fits():
    assert not find_mismatch("a.ckpt", {"state_dict": {}}, SimpleNamespace(preprocessing=HERE), allow=False)
    assert not find_mismatch("a.ckpt", {BLOCK: {}}, SimpleNamespace(preprocessing=HERE), allow=False)
    assert not find_mismatch("a.ckpt", {BLOCK: {"preprocessing": HERE}}, SimpleNamespace(), allow=False)
