from __future__ import annotations

import torch

from vireid_lightning.data.loading import normalize
from vireid_lightning.modules import GrayView, draw_channels


def pixels(count=4):
    return torch.randint(0, 256, (count, 3, 6, 4), dtype=torch.uint8)


def test_the_view_is_the_channel_in_place_of_all_three():
    images, channel = pixels(), torch.tensor([0, 2, 1, 2])
    expected = torch.stack([image[c].expand(3, -1, -1) for image, c in zip(images, channel)])
    # A channel's values go through its own mean and deviation and back: a few roundings of numbers below 3.
    torch.testing.assert_close(GrayView()(normalize(images), channel), normalize(expected), rtol=0, atol=1e-6)


def test_without_a_draw_it_is_the_green_channel():
    images = pixels()
    torch.testing.assert_close(
        GrayView()(normalize(images)), normalize(images[:, 1:2].expand(-1, 3, -1, -1)), rtol=0, atol=1e-6
    )


def test_an_infrared_image_stays_as_it_is_whatever_the_channel():
    images = normalize(pixels()[:, :1].expand(-1, 3, -1, -1).contiguous())
    for channel in range(3):
        torch.testing.assert_close(GrayView()(images, torch.full((4,), channel)), images, rtol=0, atol=1e-6)


def test_a_fake_infrared_copy_is_mixed_in_by_its_share():
    images, fakes, channel = normalize(pixels()), normalize(pixels()), torch.tensor([0, 2, 1, 2])
    mixed = GrayView(0.25)(images, channel, fake_infrared=fakes)
    torch.testing.assert_close(mixed, 0.25 * fakes + 0.75 * GrayView()(images, channel))


def test_erased_pixels_stay_exactly_zero():
    erased = torch.zeros(4, 6, 4, dtype=torch.bool)
    erased[:, 2:4, 1:3] = True
    view = GrayView()(normalize(pixels(), erased), torch.tensor([0, 1, 2, 0]), erased=erased)
    assert (view.masked_select(erased.unsqueeze(1)) == 0).all()


def test_the_draws_follow_from_their_seed_and_use_every_channel():
    assert torch.equal(draw_channels(50, (0, 1, 2)), draw_channels(50, (0, 1, 2)))
    assert not torch.equal(draw_channels(50, (0, 1, 2)), draw_channels(50, (0, 2, 1)))
    assert draw_channels(50, (0, 1, 2)).unique().tolist() == [0, 1, 2]


def test_it_adds_nothing_to_a_checkpoint():
    assert GrayView().state_dict() == {}
