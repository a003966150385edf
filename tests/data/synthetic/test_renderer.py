"""The drawing of synthetic pedestrians: deterministic, and as independent between the modalities as it says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from vireid_lightning.data.synthetic.person import Material, draw_person
from vireid_lightning.data.synthetic.renderer import PedestrianRenderer
from vireid_lightning.errors import VIReIDError

WANTED = [(0, 1, 0, 0), (0, 3, 1, 0), (7, 6, 1, 4), (7, -1, 0, 4), (8, 2, 0, 4)]


def test_same_arguments_same_pixels_in_any_order():
    first, second = PedestrianRenderer(3), pickle.loads(pickle.dumps(PedestrianRenderer(3)))
    forward = [first.draw(*one) for one in WANTED]
    backward = [second.draw(*one) for one in reversed(WANTED)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward))


@pytest.mark.parametrize("other", [(1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)])
def test_every_argument_changes_the_image(other):
    renderer = PedestrianRenderer(3)
    assert not np.array_equal(renderer.draw(0, 1, 0, 0), renderer.draw(*other))


def test_seed_and_difficulty_change_the_image():
    images = [
        PedestrianRenderer(seed, difficulty).draw(0, 1, 0, 0) for seed, difficulty in [(0, 0.5), (1, 0.5), (0, 1)]
    ]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("size", [(128, 64), (96, 48), (256, 128), (60, 80)])
def test_size_and_channels(size):
    renderer = PedestrianRenderer(0, image_size=size)
    infrared, visible = renderer.draw(0, 3, 1, 0), renderer.draw(0, 1, 0, 0)
    assert infrared.shape == visible.shape == (*size, 3)
    assert infrared.dtype == np.uint8
    assert np.array_equal(infrared[..., 0], infrared[..., 1])
    assert np.array_equal(infrared[..., 0], infrared[..., 2])
    assert not np.array_equal(visible[..., 0], visible[..., 1])


@pytest.mark.slow
def test_colour_does_not_tell_the_infrared_look():
    people = [draw_person(np.random.default_rng(number)) for number in range(2000)]
    # The sample correlation of n independent pairs has a standard deviation of about 1 / sqrt(n); four of them leave a
    # chance below 1e-4 a comparison.
    bound = 4 / np.sqrt(len(people))
    clothes = (Material.TOP, Material.INNER, Material.BOTTOM, Material.SHOES, Material.BAG, Material.HAT, Material.HAIR)
    for material in clothes:
        infrared = np.array([person.reflectance[material] for person in people])
        colour = np.array([person.colour[material] for person in people])
        for channel in (*colour.T, colour.mean(1)):
            assert abs(np.corrcoef(channel, infrared)[0, 1]) < bound
    # Nor does the order of two tones: which of a texture's is the brighter is drawn for each modality.
    for first, second in ((Material.TOP, Material.TOP_SECOND), (Material.BOTTOM, Material.BOTTOM_SECOND)):
        infrared = np.array([person.reflectance[second] - person.reflectance[first] for person in people])
        visible = np.array([(person.colour[second] - person.colour[first]).mean() for person in people])
        assert abs(np.corrcoef(visible, infrared)[0, 1]) < bound


def test_infrared_texture_fades_with_difficulty():
    """With the camera's own disturbances out of the way, the two tones of each texture come nearer."""
    from vireid_lightning.data.synthetic.renderer import _see_materials

    person = draw_person(np.random.default_rng(0))
    easy, hard = (_see_materials(person, 1, difficulty, 0.0) for difficulty in (0.0, 1.0))
    for first, second in ((Material.TOP, Material.TOP_SECOND), (Material.BOTTOM, Material.BOTTOM_SECOND)):
        assert 0 < abs(hard[second] - hard[first]).max() < abs(easy[second] - easy[first]).max()
    assert np.array_equal(_see_materials(person, 0, 0.0, 0.0), _see_materials(person, 0, 1.0, 0.0))


def test_likeness_makes_the_infrared_the_gray_value_of_the_colours():
    from PIL import Image

    from vireid_lightning.data.synthetic.renderer import _see_materials

    person = draw_person(np.random.default_rng(0))
    flat = np.rint(person.colour)[None].astype(np.uint8)
    gray = np.asarray(Image.fromarray(flat).convert("L"), dtype=float)[0]
    apart, half, alike = (_see_materials(person, 1, 0.0, likeness)[:, 0] for likeness in (0.0, 0.5, 1.0))
    cloth = slice(1, len(Material))  # the first is no material
    assert np.abs(alike[: len(Material)] - gray)[cloth].max() < 1.5  # colours and gray values are rounded, by 0.5 each
    np.testing.assert_allclose(half, (apart + alike) / 2, atol=1e-12)
    assert np.array_equal(_see_materials(person, 0, 0.0, 0.0), _see_materials(person, 0, 0.0, 1.0))


def test_likeness_leaves_visible_images_and_changes_infrared_ones():
    apart, alike = PedestrianRenderer(3), pickle.loads(pickle.dumps(PedestrianRenderer(3, likeness=1.0)))
    assert np.array_equal(apart.draw(0, 1, 0, 0), alike.draw(0, 1, 0, 0))
    assert not np.array_equal(apart.draw(0, 3, 1, 0), alike.draw(0, 3, 1, 0))


def test_every_material_and_viewpoint_is_drawn():
    """Over many people each material covers some pixels; a figure fills a sensible share of its image."""
    from vireid_lightning.data.synthetic.figure import Figure

    renderer, seen, shares = PedestrianRenderer(0), set(), []
    for number in range(60):
        labels = np.zeros((256, 128), np.uint8)
        rng = np.random.default_rng(number)
        Figure(labels, renderer.person(number), renderer._draw_pose(rng, renderer.camera(1, 0))).paint()
        seen |= set(np.unique(labels).tolist())
        shares.append((labels > 0).mean())
    assert seen == {int(material) for material in Material}
    assert min(shares) > 0.08
    assert max(shares) < 0.6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((-1, 0.5), "seed"),
        ((0, 1.5), "difficulty"),
        ((0, float("nan")), "difficulty"),
        ((0, 0.5, (8, 8)), "image_size"),
    ],
)
def test_settings_out_of_range(arguments, says):
    with pytest.raises(VIReIDError, match=says):
        PedestrianRenderer(*arguments)
