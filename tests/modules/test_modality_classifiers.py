from __future__ import annotations

import torch

from vireid_lightning.modules import ModalityClassifiers, mean_rate


def test_rate_falls_from_epoch_100():
    assert mean_rate(1) == mean_rate(50) == mean_rate(99) == 0.2
    assert mean_rate(100) == 0.2 * 100 / 101
    assert mean_rate(140, momentum=0.5) == 0.5 * 100 / 141


def test_means_start_as_copies_in_their_own_storage_and_follow():
    classifiers = ModalityClassifiers(4, 3)
    start = classifiers.visible_mean.clone()
    assert torch.equal(start, classifiers.visible.weight)
    with torch.no_grad():
        classifiers.visible.weight.add_(1.0)
    assert torch.equal(classifiers.visible_mean, start)
    classifiers.update_means(0.2)
    torch.testing.assert_close(classifiers.visible_mean, start + 0.2)
    torch.testing.assert_close(classifiers.infrared_mean, classifiers.infrared.weight.detach())
    assert {"visible_mean", "infrared_mean"} < set(classifiers.state_dict())
    assert {name for name, _ in classifiers.named_parameters()} == {"visible.weight", "infrared.weight"}


def test_each_image_meets_its_own_classifier_and_the_others_mean():
    classifiers = ModalityClassifiers(4, 3)
    classifiers.visible_mean.normal_()
    classifiers.infrared_mean.normal_()
    z, modality = torch.randn(3, 4), torch.tensor([1, 0, 1])
    own, other = classifiers(z, modality)
    torch.testing.assert_close(own[0], classifiers.infrared.weight @ z[0])
    torch.testing.assert_close(own[1], classifiers.visible.weight @ z[1])
    torch.testing.assert_close(other[0], classifiers.visible_mean @ z[0])
    torch.testing.assert_close(other[1], classifiers.infrared_mean @ z[1])
