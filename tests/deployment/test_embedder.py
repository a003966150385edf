from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from references.deployment import write_checkpoint

from vireid_lightning.data.images.reading import read_image
from vireid_lightning.data.images.resizing import resize_image
from vireid_lightning.data.loading import normalize
from vireid_lightning.deployment import Embedder
from vireid_lightning.deployment.embedder import find_distance
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import fingerprint_weights


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder.from_checkpoint(checkpoint, device="cpu", batch_size=5)


def test_embeds_as_the_evaluation_does_one_image_at_a_time(embedder, network, images):
    paths = [*sorted((images / "camera1").iterdir()), *sorted((images / "camera3").iterdir())]
    expected = []
    for path in paths:
        pixels = resize_image(read_image(path), (64, 32), "bilinear")
        batch = normalize(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        with torch.no_grad():
            expected.append(network.embed(batch, torch.tensor([int(path.parent.name == "camera3")])))
    for camera, modality, part in (("camera1", "visible", slice(0, 12)), ("camera3", "infrared", slice(12, None))):
        found = embedder.embed(images / camera, modality)
        # Batches of another size take sums in another order.
        torch.testing.assert_close(found.embedding, torch.cat(expected[part]), rtol=1e-5, atol=1e-6)
        assert found.path == [path.name for path in paths[part]]
        assert found.about["root"] == str(images / camera)


def test_both_modalities_of_a_csv_file_in_one_call(embedder, images, tmp_path):
    rows = [f"{images}/camera3/00.png,ir,3", f"{images}/camera1/00.png,rgb,1"]
    (tmp_path / "list.csv").write_text("path,modality,camera\n" + "\n".join(rows))
    both = embedder.embed([tmp_path / "list.csv"])
    alone = embedder.embed([images / "camera3" / "00.png"], "infrared")
    torch.testing.assert_close(both.embedding[:1], alone.embedding, rtol=1e-5, atol=1e-6)
    assert both.modality.tolist() == [1, 0]
    assert both.camera.tolist() == [3, 1]
    as_visible = embedder.embed([images / "camera3" / "00.png"], "visible")
    assert (as_visible.embedding - alone.embedding).norm() > 1e-2  # the streams differ


def test_unreadable_files_are_listed_and_left_out(embedder, images, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = images / "camera1" / "03.png"
    found = embedder.embed([tmp_path / "bad.png", good, tmp_path / "missing.png"], "visible")
    assert found.path == [str(good.relative_to(found.about["root"]))]
    assert list(embedder.skipped) == [str(tmp_path / "bad.png"), str(tmp_path / "missing.png")]
    assert "archive" not in "".join(embedder.skipped.values())
    with pytest.raises(VIReIDError, match=r"None of the 1 images can be read. The image file .*bad.png is truncated"):
        embedder.embed(tmp_path / "bad.png", "visible")


def test_whole_batches_of_unreadable_files_are_passed_over(embedder, images, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    found = embedder.embed([tmp_path, images / "camera3"], "infrared")
    assert len(found) == 6
    assert len(embedder.skipped) == 12


def test_deep_images_need_the_intensity_range_of_training(checkpoint, network, tmp_path):
    values = np.random.default_rng(0).integers(7000, 9000, (40, 20), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    embedder = Embedder.from_checkpoint(checkpoint, device="cpu")
    with pytest.raises(
        VIReIDError, match=r"more than 8 bits, and .*last.ckpt was trained without an intensity range for i"
    ):
        embedder.embed(tmp_path / "deep.png", "infrared")
    path = write_checkpoint(tmp_path / "deep.ckpt", network, intensity_range={"infrared": [7000, 9000]})
    ranged = Embedder.from_checkpoint(path, device="cpu")
    expected = resize_image(read_image(tmp_path / "deep.png", (7000, 9000), 1), (64, 32), "bilinear")
    assert np.array_equal(ranged.prepare(tmp_path / "deep.png", 1), expected)


def test_the_interpolation_is_the_checkpoints(network, images, tmp_path):
    path = images / "camera1" / "11.png"
    for name in ("lanczos", "opencv-bilinear"):
        embedder = Embedder.from_checkpoint(write_checkpoint(tmp_path / f"{name}.ckpt", network, name), device="cpu")
        assert np.array_equal(embedder.prepare(path, 0), resize_image(read_image(path), (64, 32), name))


def test_a_checkpoint_of_before_the_resizers_names(network, tmp_path):
    checkpoint = torch.load(write_checkpoint(tmp_path / "a.ckpt", network), weights_only=True)
    del checkpoint["vireid"]["preprocessing"]["resizer"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert Embedder.from_checkpoint(tmp_path / "old.ckpt", device="cpu").interpolation == "opencv-bilinear"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "nearest"}, "resized by 'nearest', which this version does not have"),
        ({"mean": [0.0, 0.0, 0.0]}, "with the mean .*which this version does not normalise by"),
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(network, tmp_path, change, message):
    path = write_checkpoint(tmp_path / "a.ckpt", network, **{"resizer": "pillow"})
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["vireid"]["preprocessing"] |= change
    torch.save(checkpoint, path)
    with pytest.raises(VIReIDError, match=message):
        Embedder.from_checkpoint(path)


def test_a_checkpoint_that_says_nothing_of_its_images(network, tmp_path):
    checkpoint = torch.load(write_checkpoint(tmp_path / "a.ckpt", network), weights_only=True)
    del checkpoint["vireid"]["preprocessing"]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(VIReIDError, match="does not say how its images were prepared"):
        Embedder.from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("given", [{"device": "toaster"}, {"distance": "manhattan"}, {"batch_size": 0}])
def test_wrong_arguments(checkpoint, given):
    with pytest.raises(VIReIDError, match=r"toaster|manhattan|batch_size is 0"):
        Embedder.from_checkpoint(checkpoint, **given)


def test_the_distance_is_that_of_the_training_set():
    assert find_distance({"dataset": {"name": "RegDB"}}) == "euclidean"  # of a checkpoint that does not say
    assert find_distance({"dataset": {"name": "mine", "distance": "euclidean"}}) == "euclidean"
    assert find_distance({"dataset": {"name": "mine"}}) == "cosine"
    assert find_distance({}) == "cosine"


def test_the_fingerprint_follows_the_weights_alone(embedder, network, checkpoint, tmp_path):
    assert embedder.weights == fingerprint_weights(network)
    again = write_checkpoint(tmp_path / "copy.ckpt", network)
    assert Embedder.from_checkpoint(again, device="cpu").weights == embedder.weights
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = torch.nn.Module()
    changed.state_dict = lambda: state
    assert fingerprint_weights(changed) == embedder.weights
    next(iter(state.values()))[0, 0, 0, 0] += 1e-3
    assert fingerprint_weights(changed) != embedder.weights
