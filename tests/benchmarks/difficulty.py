"""How hard the synthetic pedestrians are: all-search single-shot cross-modality Rank-1, over difficulties.

Raw pixels, grey histograms and a network with random weights must stay below 3 x chance; a small network trained for
minutes (400 steps of 64 images, about 2 minutes on two free cores) must be far above, and leave room at the hard end.
Infrared images of cameras 3 and 6 query one visible image per unseen identity and camera (camera 3 skips camera 2), as
in SYSU-MM01, over random trials.

Run: python tests/benchmarks/difficulty.py [--difficulties 0 0.25 0.5 0.75 1] [--steps 400]
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.data.synthetic.renderer import PedestrianRenderer

CAMERAS = {1: 0, 2: 0, 3: 1, 4: 0, 5: 0, 6: 1}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pedestrians:
    """Images of some persons, drawn into memory: ``image`` (N, 3, H, W) uint8 and what each shows."""

    def __init__(self, difficulty: float, persons: range, images: int, seed: int) -> None:
        renderer = PedestrianRenderer(seed, difficulty)
        wanted = [(p, c, m, n) for p in persons for c, m in CAMERAS.items() for n in range(images)]
        drawn = np.stack([renderer.draw(*one) for one in wanted])
        self.image = torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()
        self.person, self.camera, self.modality, _ = np.array(wanted).T

    def queries(self) -> np.ndarray:
        """Positions of all infrared images."""
        return np.flatnonzero(self.modality == 1)

    def gallery(self, trial: int) -> np.ndarray:
        """One visible image of each person in each camera."""
        order = np.random.default_rng(trial).permutation(np.flatnonzero(self.modality == 0))
        _, first = np.unique(np.stack([self.person[order], self.camera[order]]), axis=1, return_index=True)
        return order[first]


def score_rank1(embedding: Tensor, data: Pedestrians, trials: int = 10) -> tuple[float, float]:
    """Return Rank-1 in percent with cosine similarity, and what guessing would reach."""
    embedding = F.normalize(embedding.float(), dim=1).numpy()
    query, hits, chances = data.queries(), [], []
    for trial in range(trials):
        gallery = data.gallery(trial)
        allowed = ~((data.camera[query] == 3)[:, None] & (data.camera[gallery] == 2)[None])
        similarity = np.where(allowed, embedding[query] @ embedding[gallery].T, -np.inf)
        match = data.person[query][:, None] == data.person[gallery][None]
        hits.append(match[np.arange(len(query)), similarity.argmax(1)].mean())
        chances.append(((match & allowed).sum(1) / allowed.sum(1)).mean())
    return 100 * float(np.mean(hits)), 100 * float(np.mean(chances))


def raw_pixels(data: Pedestrians) -> Tensor:
    """Grey images of 32 x 16, with the mean removed."""
    grey = F.interpolate(data.image.float().mean(1, keepdim=True), size=(32, 16), mode="area").flatten(1)
    return grey - grey.mean(1, keepdim=True)


def grey_histograms(data: Pedestrians) -> Tensor:
    """Histograms of 32 grey levels."""
    grey = data.image.float().mean(1).flatten(1).numpy()
    return torch.tensor(np.stack([np.histogram(one, 32, (0, 256))[0] for one in grey]), dtype=torch.float32)


class Network(nn.Module):
    """A small backbone, average pooling, batch normalisation as a neck and an identity classifier."""

    def __init__(self, backbone: str, identities: int) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0, global_pool="")
        self.neck = nn.BatchNorm1d(self.backbone.num_features)
        self.classifier = nn.Linear(self.backbone.num_features, identities, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor(MEAN).view(1, 3, 1, 1) * 255
        std = torch.tensor(STD).view(1, 3, 1, 1) * 255
        maps = self.backbone(((image.float() - mean) / std).contiguous(memory_format=torch.channels_last))
        return maps.float().mean((2, 3))


@torch.no_grad()
def embed(network: Network, data: Pedestrians, neck: bool) -> Tensor:
    """Embed every image; with random weights the neck's statistics mean nothing, so it is left out."""
    network.eval()
    out = []
    for block in data.image.split(256):
        with torch.autocast("cpu", torch.bfloat16):
            pooled = network(block)
        out.append(network.neck(pooled) if neck else pooled - pooled.mean(0))
    return torch.cat(out)


def augment(image: Tensor, modality: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift, erase, and mix the channels of visible images into one, so that colour is not learnt by heart."""
    image = image.float()
    for i in range(len(image)):
        if torch.rand((), generator=generator) < 0.5:
            image[i] = image[i].flip(-1)
        y, x = torch.randint(0, 13, (2,), generator=generator).tolist()
        image[i] = F.pad(image[i], (6, 6, 6, 6), value=120)[:, y : y + image.shape[2], x : x + image.shape[3]]
        if modality[i] == 0 and torch.rand((), generator=generator) < 0.8:
            weights = torch.rand(3, generator=generator)
            image[i] = (image[i] * (weights / weights.sum())[:, None, None]).sum(0)
        if torch.rand((), generator=generator) < 0.4:
            height, width = (torch.rand(2, generator=generator) * 0.3 + 0.1).tolist()
            y, x = torch.rand(2, generator=generator).tolist()
            top, left = int(y * image.shape[2] * (1 - height)), int(x * image.shape[3] * (1 - width))
            image[i, :, top : top + int(height * image.shape[2]), left : left + int(width * image.shape[3])] = 120
    return image


def batch_hard(pooled: Tensor, identity: Tensor, margin: float = 0.3) -> Tensor:
    """The batch-hard triplet loss over both modalities."""
    distance = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")
    same = identity[:, None] == identity[None]
    positive = distance.masked_fill(~same, 0).amax(1)
    negative = distance.masked_fill(same, float("inf")).amin(1)
    return F.relu(margin + positive - negative).mean()


def train(data: Pedestrians, backbone: str, steps: int, report: bool = False) -> Network:
    """Train a network from random weights: identity cross-entropy and batch-hard triplet."""
    torch.manual_seed(0)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    persons = np.unique(data.person)
    network = Network(backbone, len(persons)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=5e-4)
    places = {(p, m): np.flatnonzero((data.person == p) & (data.modality == m)) for p in persons for m in (0, 1)}
    begin = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:  # warm up, then fall to zero
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        chosen = rng.choice(persons, 16, replace=False)
        at = np.concatenate([rng.choice(places[p, m], 2, replace=False) for m in (0, 1) for p in chosen])
        identity = torch.from_numpy(np.searchsorted(persons, data.person[at]))
        image = augment(data.image[at], torch.from_numpy(data.modality[at]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = network(image)
        logits = network.classifier(network.neck(pooled))
        loss = F.cross_entropy(logits, identity, label_smoothing=0.1) + batch_hard(pooled, identity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if report and step % 50 == 49:
            seconds = time.perf_counter() - begin
            print(f"    step {step + 1} of {steps}, {seconds:.0f} s, loss {loss.item():.3f}", flush=True)
    return network


def measure(difficulty: float, arguments: argparse.Namespace) -> dict[str, float]:
    """Return Rank-1 in percent of every method, and chance."""
    tests = Pedestrians(difficulty, range(10_000, 10_000 + arguments.test_identities), 6, arguments.seed)
    torch.manual_seed(0)
    pixels, chance = score_rank1(raw_pixels(tests), tests)
    row = {"chance": chance, "raw pixels": pixels}
    row["grey histograms"] = score_rank1(grey_histograms(tests), tests)[0]
    row["random weights"] = score_rank1(embed(Network("resnet18", 2), tests, neck=False), tests)[0]
    if arguments.steps > 0:
        trains = Pedestrians(difficulty, range(arguments.train_identities), 6, arguments.seed)
        network = train(trains, arguments.backbone, arguments.steps, arguments.verbose)
        row["trained"] = score_rank1(embed(network, tests, neck=True), tests)[0]
    return row


def main(words: list[str] | None = None) -> list[dict[str, float]]:
    """Print the table, one row a difficulty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--difficulties", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--steps", type=int, default=400, help="training steps of 64 images; 0 leaves it out")
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--train-identities", type=int, default=160)
    parser.add_argument("--test-identities", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args(words)
    cv2.setNumThreads(1)
    rows = []
    for difficulty in arguments.difficulties:
        begin = time.perf_counter()
        row = measure(difficulty, arguments)
        rows.append(row)
        cells = "  ".join(
            f"{name} {value:.2f} %" + (f" ({value / row['chance']:.1f} x)" if name != "chance" else "")
            for name, value in row.items()
        )
        print(f"difficulty {difficulty:.2f}: {cells}  [{time.perf_counter() - begin:.0f} s]", flush=True)
    return rows


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
def test_neither_trivial_nor_hopeless():
    rows = main([])
    for row in rows:
        assert all(row[name] < 3 * row["chance"] for name in ("raw pixels", "grey histograms", "random weights"))
    assert rows[2]["trained"] > 8 * rows[2]["chance"]
    assert rows[-1]["trained"] < 90


if __name__ == "__main__":
    main()
