"""The released networks as slow references: torchvision's ResNet-50 under the authors' state-dict names.

Each holds exactly the tensors that a released file holds, the unused ones included, and computes embeddings and every
loss term the obvious way, from the equations, in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from references.dense_contrastive import dense_contrastive_reference
from references.weighted_regularized_triplet import weighted_regularized_triplet_reference
from torch import nn
from torchvision.models import resnet50


def resnet():
    network = resnet50(weights=None)
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    del network.fc
    return network


def stem(network, x):
    return network.maxpool(network.relu(network.bn1(network.conv1(x))))


def holder(**children):
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def gem(x, p=3.0):
    return ((x**p).mean((2, 3)) + 1e-12) ** (1 / p)


def scramble(module, seed=0):
    """Give every tensor values of its own, statistics and shifts included, and keep the network's scale sane."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                value.fill_(7)
            elif "running_var" in name or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
                if name.endswith(("bn3.weight", "W.1.weight")):
                    value.mul_(0.2)  # ends of residual branches: 16 of them, and products of three, would overflow
            elif value.ndim == 1:
                value.normal_(0, 0.1, generator=generator)
            else:
                fan = value[0].numel()
                value.normal_(0, (2 / fan) ** 0.5 if value.ndim == 4 else 0.05, generator=generator)
                if name.startswith("NL_") and value.ndim == 4:
                    value.mul_(0.2)  # three of them are multiplied
    return module


def hollow(state, names=("",)):
    """A state dict whose tensors of these beginnings keep their shapes but hold one value, as small files do."""
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape) if name.startswith(tuple(names)) else value
        for name, value in state.items()
    }


class ReleasedAGW(nn.Module):
    unused = (
        "visible_module.visible.layer",
        "thermal_module.thermal.layer",
        "base_resnet.base.conv1",
        "base_resnet.base.bn1",
    )

    def __init__(self, classes):
        super().__init__()
        self.visible_module = holder(visible=resnet())
        self.thermal_module = holder(thermal=resnet())
        self.base_resnet = holder(base=resnet())
        self.NL_2 = nn.ModuleList(self.non_local(512) for _ in range(2))
        self.NL_3 = nn.ModuleList(self.non_local(1024) for _ in range(3))
        self.bottleneck = nn.BatchNorm1d(2048)
        self.classifier = nn.Linear(2048, classes, bias=False)

    @staticmethod
    def non_local(channels):
        return holder(
            g=nn.Sequential(nn.Conv2d(channels, 1, 1)),
            theta=nn.Conv2d(channels, 1, 1),
            phi=nn.Conv2d(channels, 1, 1),
            W=nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels)),
        )

    @staticmethod
    def attend(block, x):
        theta, phi, g = (branch(x).flatten(2) for branch in (block.theta, block.phi, block.g))
        attention = theta.transpose(1, 2) @ phi / theta.shape[2]  # every position with every other
        gathered = (attention @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + block.W(gathered)

    def pooled(self, images, modality):
        half = int((modality == 0).sum())
        x = torch.cat(
            [stem(self.visible_module.visible, images[:half]), stem(self.thermal_module.thermal, images[half:])]
        )
        base = self.base_resnet.base
        x = base.layer1(x)
        for index, block in enumerate(base.layer2):
            x = block(x)
            if index >= 2:
                x = self.attend(self.NL_2[index - 2], x)
        for index, block in enumerate(base.layer3):
            x = block(x)
            if index >= 3:
                x = self.attend(self.NL_3[index - 3], x)
        return gem(base.layer4(x))

    def embed(self, images, modality):
        return F.normalize(self.bottleneck(self.pooled(images, modality)))

    def terms(self, batch):
        pooled = self.pooled(batch["image"], batch["modality"])
        return {
            "identity": F.cross_entropy(self.classifier(self.bottleneck(pooled)), batch["identity"]),
            "triplet": weighted_regularized_triplet_reference(pooled, batch["identity"]).float(),
        }


def center_cluster(features, identity, margin=0.7):
    names = identity.unique().tolist()
    centres = torch.stack([features[identity == name].mean(0) for name in names])
    to_centre = torch.stack([(f - centres[names.index(int(y))]).norm() for f, y in zip(features, identity)]).mean()
    apart = [
        torch.stack([F.relu(margin - (a - b).norm()) for j, b in enumerate(centres) if j != i]).mean()
        for i, a in enumerate(centres)
    ]
    return to_centre + torch.stack(apart).mean()


class ReleasedDCLNet(nn.Module):
    unused = (
        *(f"{stream}_module.base.layer{stage}" for stream in ("visible", "thermal") for stage in (2, 3, 4)),
        *(f"shared_module.base.{part}" for part in ("conv1", "bn1", "layer1")),
    )

    def __init__(self, classes):
        super().__init__()
        self.visible_module = holder(base=resnet())
        self.thermal_module = holder(base=resnet())
        self.shared_module = holder(base=resnet())
        self.bottleneck = nn.BatchNorm1d(2048)
        self.classifier = nn.Linear(2048, classes, bias=False)
        self.part_bottleneck = nn.BatchNorm1d(6 * 2048)
        self.part_classifier = nn.Linear(6 * 2048, classes, bias=False)
        self.pixel_classifier_rgb = nn.Linear(3904, 8, bias=False)
        self.pixel_classifier_ir = nn.Linear(3904, 8, bias=False)

    def maps(self, images, modality):
        half = int((modality == 0).sum())
        streams = self.visible_module.base, self.thermal_module.base
        stems = [stem(net, x) for net, x in zip(streams, (images[:half], images[half:]))]
        first = torch.cat([net.layer1(x) for net, x in zip(streams, stems)])
        maps = [torch.cat(stems), first]
        for layer in (self.shared_module.base.layer2, self.shared_module.base.layer3, self.shared_module.base.layer4):
            maps.append(layer(maps[-1]))
        return maps

    def embed(self, images, modality):
        return F.normalize(self.bottleneck(gem(self.maps(images, modality)[-1])))

    def terms(self, batch):
        maps, identity = self.maps(batch["image"], batch["modality"]), batch["identity"]
        shallow, deep = maps[1], maps[-1]
        size, half = shallow.shape[2:], len(identity) // 2
        pooled = gem(deep)
        logits = self.classifier(self.bottleneck(pooled))
        stripes = deep.detach().chunk(6, dim=2)
        part_logits = self.part_classifier(self.part_bottleneck(torch.cat([gem(stripe) for stripe in stripes], dim=1)))

        erased = torch.zeros(len(identity), *size, dtype=torch.bool)
        for u in range(size[0]):
            for v in range(size[1]):
                erased[:, u, v] = batch["erased"][:, 4 * u, 4 * v]
        rows, parsed = size[0] // 6, torch.zeros(len(identity), *size, dtype=torch.long)
        with torch.no_grad():
            for image in range(len(identity)):
                for part, stripe in enumerate(stripes):
                    weight = self.part_classifier.weight[logits[image].argmax(), part * 2048 : (part + 1) * 2048]
                    activation = (weight[:, None, None] * stripe[image]).sum(0)
                    activation = F.interpolate(activation[None, None], (rows, size[1]), mode="bilinear")[0, 0]
                    activation = (activation - activation.min()) / (activation.max() - activation.min())
                    parsed[image, part * rows : (part + 1) * rows] = (activation > activation.mean()) * (part + 1)
        parsed[erased] = 0

        stacked = torch.cat([F.interpolate(x.detach(), size, mode="bilinear") for x in maps], dim=1)
        pixels = stacked.permute(0, 2, 3, 1)
        pixel_logits = torch.cat([self.pixel_classifier_rgb(pixels[:half]), self.pixel_classifier_ir(pixels[half:])])
        flat, labels = pixel_logits.flatten(0, 2), parsed.flatten()
        pixel = F.cross_entropy(flat[:, :2], (labels > 0).long())
        pixel = pixel + F.cross_entropy(flat[labels > 0, 2:], labels[labels > 0] - 1)
        continuity = 0.5 * (
            (pixel_logits[:, 1:] - pixel_logits[:, :-1]).abs().mean()
            + (pixel_logits[:, :, 1:] - pixel_logits[:, :, :-1]).abs().mean()
        )
        mask = pixel_logits[..., :2].argmax(-1) * (pixel_logits[..., 2:].argmax(-1) + 1)
        mask[erased] = 0
        return {
            "identity": F.cross_entropy(logits, identity),
            "center_cluster": center_cluster(pooled, identity),
            "part": F.cross_entropy(part_logits, identity),
            "pixel": pixel,
            "continuity": continuity,
            "dense": dense_contrastive_reference(shallow[:half], shallow[half:], mask[:half], mask[half:]),
        }


class ReleasedMPANet(nn.Module):
    unused = ("nothing",)

    def __init__(self, classes, maps=6):
        super().__init__()
        self.backbone = resnet()
        self.backbone.MAM3, self.backbone.MAM4 = self.alleviation(1024), self.alleviation(2048)
        length = (maps + 1) * 2048
        self.spatial_attention = nn.Conv2d(2048, maps, 1)
        self.bn_neck = nn.BatchNorm1d(length)
        for name in ("classifier", "visible_classifier", "infrared_classifier"):
            self.add_module(name, nn.Linear(length, classes, bias=False))
        for name in ("visible_classifier_", "infrared_classifier_"):
            self.add_module(name, nn.Linear(length, classes, bias=False))

    @staticmethod
    def alleviation(channels):
        reduce, expand = (
            nn.Conv2d(channels, channels // 16, 1, bias=False),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )
        return holder(channel_attention=nn.Sequential(reduce, nn.ReLU(), expand, nn.Sigmoid()))

    def forward(self, images):
        x = stem(self.backbone, images)
        x = self.backbone.layer3(self.backbone.layer2(self.backbone.layer1(x)))
        for module, layer in ((self.backbone.MAM3, None), (self.backbone.MAM4, self.backbone.layer4)):
            x = x if layer is None else layer(x)
            kept = module.channel_attention(x.mean((2, 3), keepdim=True))
            x = kept * x + (1 - kept) * F.instance_norm(x)
        masks = self.spatial_attention(x).sigmoid()
        patterns = [(masks[:, part : part + 1] * x).mean((2, 3)) for part in range(masks.shape[1])]
        return torch.cat([*patterns, x.mean((2, 3))], dim=1), masks

    def embed(self, images, modality):
        return self.bn_neck(self(images)[0])

    @torch.no_grad()
    def move_means(self, rate=0.2):
        for name in ("visible_classifier", "infrared_classifier"):
            mean = getattr(self, f"{name}_").weight
            mean.copy_((1 - rate) * mean + rate * getattr(self, name).weight)

    def terms(self, batch):
        self.move_means()
        features, masks = self(batch["image"])
        identity, half = batch["identity"], len(batch["identity"]) // 2
        z = self.bn_neck(features)
        parts = masks.shape[1]
        overlap = sum((masks[:, k] * masks[:, j]).sum() for j in range(parts) for k in range(j))
        own = [self.visible_classifier(z[:half]), self.infrared_classifier(z[half:])]
        other = [self.infrared_classifier_(z[:half]).detach(), self.visible_classifier_(z[half:]).detach()]
        divergence = torch.stack(
            [
                (target.softmax(1) * (target.log_softmax(1) - prediction.log_softmax(1))).sum(1)
                for target, prediction in zip(own, other)
            ]
        )
        return {
            "identity": F.cross_entropy(self.classifier(z), identity),
            "separation": overlap / (len(identity) * parts * (parts - 1) / 2),
            "center_cluster": center_cluster(features, identity),
            "modality_identity": F.cross_entropy(own[0], identity[:half]) + F.cross_entropy(own[1], identity[half:]),
            "mutual_mean": divergence.mean(),
        }
