"""MPANet's terms written out image by image, from the network's weights."""

from __future__ import annotations

import torch
from references.center_cluster import center_cluster
from torch.nn import functional

from vireid_lightning.methods import MPANet


def separation(masks: torch.Tensor) -> torch.Tensor:
    batch, parts = masks.shape[:2]
    total = masks.new_zeros(())
    for image in masks:
        for k in range(parts):
            for l in range(k):  # noqa: E741
                total = total + (image[l] * image[k]).sum()
    return total / (batch * (parts * (parts - 1) / 2))


def modality_identity(logits: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
    total = logits.new_zeros(())
    for label in (0, 1):
        rows = [i for i in range(len(identity)) if modality[i] == label]
        for i in rows:
            total = total - torch.log_softmax(logits[i], 0)[identity[i]] / len(rows)
    return total


def mutual_mean(target_logits: torch.Tensor, prediction_logits: torch.Tensor) -> torch.Tensor:
    total = target_logits.new_zeros(())
    for i in range(len(target_logits)):
        p = torch.exp(target_logits[i]) / torch.exp(target_logits[i]).sum()
        q = (torch.exp(prediction_logits[i]) / torch.exp(prediction_logits[i]).sum()).detach()
        for c in range(len(p)):
            total = total + p[c] * torch.log(p[c] / q[c])
    return total / len(target_logits)


def alleviate(x: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(functional.conv2d(x.mean((2, 3), keepdim=True), first))
    kept = torch.sigmoid(functional.conv2d(hidden, second))
    return kept * x + (1 - kept) * functional.instance_norm(x)


def patterns(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.sigmoid(functional.conv2d(x, weight, bias))
    vectors = [(masks[:, part : part + 1] * x).mean((2, 3)) for part in range(masks.shape[1])]
    return torch.cat([*vectors, x.mean((2, 3))], dim=1), masks


def total_loss(model: MPANet, batch: dict, epoch: int) -> dict[str, torch.Tensor]:
    """Return every term and the total under ``total``, with the paper's weights; ``epoch`` counts from 1."""
    state = dict(model.named_parameters())
    x = batch["image"]
    for number, stage in enumerate(model.backbone.stages):
        x = stage(x)
        if number in (3, 4):
            prefix = f"backbone.after.{number}.attention"
            x = alleviate(x, state[f"{prefix}.0.weight"], state[f"{prefix}.2.weight"])
    features, masks = patterns(x, state["patterns.masks.weight"], state["patterns.masks.bias"])
    mean, variance = features.mean(0), features.var(0, correction=0)
    z = (features - mean) / (variance + 1e-5).sqrt() * state["neck.weight"] + state["neck.bias"]

    rate = 0.2 * min(100 / (epoch + 1), 1)
    classifiers = {0: state["modality_classifiers.visible.weight"], 1: state["modality_classifiers.infrared.weight"]}
    means = {0: model.modality_classifiers.visible_mean, 1: model.modality_classifiers.infrared_mean}
    means = {label: (1 - rate) * means[label] + rate * classifiers[label].detach() for label in (0, 1)}
    modality = batch["modality"].tolist()
    own = torch.stack([classifiers[label] @ z[i] for i, label in enumerate(modality)])
    other = torch.stack([means[1 - label] @ z[i].detach() for i, label in enumerate(modality)])
    logits = z @ state["classifier.weight"].T
    terms = {
        "identity": sum(-torch.log_softmax(row, 0)[y] for row, y in zip(logits, batch["identity"], strict=True))
        / len(logits),
        "separation": separation(masks),
        "center_cluster": center_cluster(features, batch["identity"], 0.7),
        "modality_identity": modality_identity(own, batch["identity"], batch["modality"]),
        "mutual_mean": mutual_mean(own, other),
    }
    terms["total"] = (
        terms["identity"]
        + 0.5 * terms["separation"]
        + terms["center_cluster"]
        + terms["modality_identity"]
        + 2.5 * terms["mutual_mean"]
    )
    return terms
