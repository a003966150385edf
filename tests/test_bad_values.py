"""Every public constructor and function refuses wrong numbers and choices in a sentence that names them.

They are found among the packages' exports: a new one fails here until it has a line of the table, or its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from references.bad_values import Range, discover, list_arguments, list_bad, says
from references.deployment import write_checkpoint
from references.report_content import make_content, make_embeddings, make_protocols
from references.valid_files import write_valid

from vireid_lightning import (
    callbacks,
    clustering,
    data,
    deployment,
    losses,
    methods,
    metrics,
    modules,
    report,
)
from vireid_lightning.data.samplers import modality as modality_sampler
from vireid_lightning.data.samplers import pseudo_label
from vireid_lightning.data.synthetic import drawing, layouts, renderer
from vireid_lightning.errors import VIReIDError

FOUND = discover()

#: What neither checks nor should, and why.
LEFT_ALONE = {
    "clustering.Matching": "what match_clusters returns",
    "data.PublishedSplit": "a constant of a dataset's class",
    "data.Sample": "made by the thousand from checked index files",
    "data.synthetic.layouts.PlannedImage": "made by the plans, whose counts are checked",
    "methods.ReIDModule": "abstract; what it takes is tried with every method",
    "metrics.ProtocolScores": "what scoring returns",
    "modules.ModalityRows": "made of a batch in every step",
    "report.ReportContent": "what collect returns",
}


class Case(NamedTuple):
    """How to give something a value, and the numbers that its arguments take."""

    make: Callable[..., object]
    ranges: dict[str, str]


SAMPLES = [data.Sample(f"{i}-{m}-{k}.jpg", i, m, 1) for i in range(8) for m in (0, 1) for k in range(2)]
POINTS = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), dim=1)
LABELS = torch.arange(4).repeat(3)
MAPS, MASK = torch.rand(2, 3, 6, 4), torch.ones(2, 6, 4, dtype=torch.long)

COUNT, SIZE, NETWORK, SEED = "[0, inf)", "[1, 16777216]", {"backbone": "test_resnet", "pretrained": False}, "[0, inf)"
ONE, SHARE, POSITIVE, WEIGHT, SIDE = "[1, inf)", "[0, 1]", "(0, inf)", "[0, inf)", "[1, 4096]"
DRAWN, PIXELS, ANY = "[1, 1000000]", "[16, 2048]", "(-inf, inf)"
JACCARD = {"k1": ONE, "k2": ONE}
RANKS = {"num_replicas": ONE, "rank": "[0, 0]", "seed": SEED, "steps_per_epoch": ONE}
STAGE = {"warmup_steps": COUNT, "eps": "(0, 1)", "min_samples": ONE, **JACCARD, "clusters": "[2, inf)"}
STAGE |= {"final_lr": WEIGHT, "temperature": POSITIVE, "momentum": SHARE, "lr": POSITIVE}
STAGE |= dict.fromkeys(("steps", "constant_steps", "dbscan_steps", "kmeans_steps"), COUNT)
STAGE |= dict.fromkeys(("kl_weights", "similarity_weight", "margin", "kl_weight", "distance_weight"), WEIGHT)
STAGE |= {"smoothing": "[0, 1)", "scale": POSITIVE}
METHOD = {"num_classes": "[2, 10000000]", "gem_p": POSITIVE, "margin": WEIGHT, "temperature": POSITIVE}
METHOD |= {"non_local_blocks": COUNT, "non_local_channels": "[1, 65536]", "parts": "[1, 256]", "stripes": "[1, 256]"}
METHOD |= {"mean_momentum": SHARE, "fake_share": SHARE, "two_stream_until": COUNT, "cycle_start": COUNT}
METHOD |= {"sinkhorn_rounds": ONE, "sinkhorn_temperature": POSITIVE, "part_dimension": "[1, 65536]"}


def weights_of(method: type) -> dict[str, str]:
    return {name: WEIGHT for name in list_arguments(method) if name.endswith("_weight")}


@functools.cache
def embeddings() -> metrics.Embeddings:
    return make_embeddings()


@functools.cache
def content() -> report.ReportContent:
    return make_content()


@functools.cache
def embedder() -> deployment.Embedder:
    preprocessing = {"image_size": [32, 16], "interpolation": "bilinear", "resizer": "pillow"}
    return deployment.Embedder(methods.AGW(num_classes=None, **NETWORK), preprocessing)


def make_embedder(folder: Path, **given: Any) -> object:
    return deployment.Embedder(embedder().method, embedder().preprocessing, **given)


def open_checkpoint(folder: Path, **given: Any) -> object:
    if not (path := folder / "c.ckpt").exists():
        write_checkpoint(path, embedder().method)
    return deployment.Embedder.from_checkpoint(path, **given)


def load_gallery(folder: Path, **given: Any) -> object:
    return deployment.Gallery.load(write_valid("gallery", folder, None), **given)


@functools.cache
def index() -> deployment.GalleryIndex:
    return deployment.GalleryIndex.build(deployment.Gallery(embeddings()))


def read_image(folder: Path, **given: Any) -> object:
    path = folder / "image.png"
    if not path.exists():
        import cv2

        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    return data.read_image(path, **given)


@functools.cache
def drawn(folder: Path) -> data.Synthetic:
    small = {"identities": 2, "val_identities": 2, "test_identities": 2, "images": 1, "image_size": (16, 16)}
    return data.Synthetic(folder / "drawn", **small)


def draw(folder: Path, **given: Any) -> object:
    small = {"identities": 2, "val_identities": 2, "test_identities": 2, "images": 1, "image_size": (16, 16)}
    return data.Synthetic(folder / "drawn", **{**small, **given})


def write_plan(folder: Path, **given: Any) -> object:
    small = {"image_size": (16, 16), "workers": 1}
    return drawing.write_plan(layouts.plan_llcm(1, 1, 1), folder / "planned", **{**small, **given})


def evaluate_file(folder: Path, **given: Any) -> object:
    dataset = drawn(folder)
    samples = dataset.samples("test")
    saved = metrics.Embeddings(
        torch.randn(len(samples), 4),
        [sample.identity for sample in samples],
        [sample.camera for sample in samples],
        [sample.modality for sample in samples],
        [sample.path for sample in samples],
    )
    saved.save(folder / "e.npz")
    return metrics.evaluate_file(folder / "e.npz", dataset, **given)


def open_manifest(folder: Path, **given: Any) -> object:
    return data.Manifest(write_valid("manifest", folder, None), **given)


def open_regdb(folder: Path, **given: Any) -> object:
    return data.RegDB(write_valid("split", folder, None).parents[1], **given)


def export(folder: Path, **given: Any) -> object:
    (folder / "n.safetensors").unlink(missing_ok=True)
    return deployment.export_checkpoint(embedder(), folder / "n.safetensors", **{"format": "safetensors", **given})


def plain(function: Callable[..., object], *arguments: Any, **usual: Any) -> Callable[..., object]:
    """Call something whose other arguments are these."""
    return lambda _, **given: function(*arguments, **{**usual, **given})


def of_method(method: type) -> Case:
    return Case(plain(method, **NETWORK), {**METHOD, **weights_of(method)})


def plan(function: Callable[..., object], **ranges: str) -> Case:
    return Case(plain(function), {**dict.fromkeys(list_arguments(function), DRAWN), "seed": SEED, **ranges})


CASES = {
    "callbacks.LastAndBest": Case(
        plain(callbacks.LastAndBest, monitor="val/mAP"),
        {"save_top_k": "[-1, inf)", "every_n_train_steps": COUNT, "every_n_epochs": COUNT},
    ),
    "callbacks.RetrievalMetrics": Case(plain(callbacks.RetrievalMetrics), {"block_mb": ONE}),
    "callbacks.WriteReport": Case(plain(callbacks.WriteReport), {"lists": ONE, "max_mb": POSITIVE}),
    "clustering.cluster_centroids": Case(
        plain(clustering.cluster_centroids, POINTS, LABELS, clusters=4), {"clusters": SIZE}
    ),
    "clustering.dbscan_labels": Case(
        plain(clustering.dbscan_labels, POINTS), {"eps": "(0, 1)", "min_samples": ONE, **JACCARD}
    ),
    "clustering.jaccard_distance": Case(
        plain(clustering.jaccard_distance, POINTS), {"max_distance": "(0, 1]", **JACCARD}
    ),
    "clustering.kmeans_labels": Case(
        plain(clustering.kmeans_labels, POINTS, clusters=2),
        {"clusters": "[1, 12]", "seed": "[0, 9223372036854775807]", "iterations": ONE},
    ),
    "clustering.update_memory": Case(
        plain(clustering.update_memory, torch.eye(4), POINTS, LABELS), {"momentum": SHARE}
    ),
    "data.Augmentation": Case(
        lambda _, **given: data.Augmentation(**given).check(),  # a command line's parser would hide what it says
        {
            **dict.fromkeys(list_arguments(data.Augmentation), SHARE),
            "pad": "[0, 4096]",
            "pad_fill": "[0, 255]",
            "channel_erasing_fill": "[0, 255]",
            "erasing_area": "(0, 1]",
            "erasing_ratio": POSITIVE,
        },
    ),
    "data.CrossModalityDataModule": Case(
        lambda folder, **given: data.CrossModalityDataModule(drawn(folder), **given),
        {
            "identities_per_batch": ONE,
            "images_per_modality": ONE,
            "image_size": SIDE,
            "steps_per_epoch": "[1, 1000000]",
            "eval_batch_size": ONE,
            "num_workers": COUNT,
            "seed": "[0, 4294967295]",
        },
    ),
    "data.EvaluationSampler": Case(plain(data.EvaluationSampler, SAMPLES), RANKS),
    "data.IdentitySampler": Case(
        plain(data.IdentitySampler, SAMPLES, identities_per_batch=4, images_per_modality=2),
        {**RANKS, "identities_per_batch": "[2, 8]", "images_per_modality": ONE},
    ),
    "data.ImageFiles": Case(
        plain(data.ImageFiles, Path(), [], image_size=(4, 2)),
        {"image_size": SIDE, "modalities": "[0, 1]", "limits": ANY},
    ),
    "data.IntensityRange": Case(
        lambda _, **given: data.IntensityRange(**given).check(),  # as Augmentation
        {"visible": ANY, "infrared": ANY, "visible_percentiles": "[0, 100]", "infrared_percentiles": "[0, 100]"},
    ),
    "data.Manifest": Case(open_manifest, {}),
    "data.RegDB": Case(open_regdb, {"trial": "[1, 10]"}),
    "data.SYSUMM01": Case(lambda folder, **given: data.SYSUMM01(drawn(folder).root, **given), {}),
    "data.Source": Case(
        lambda folder, **given: data.Source(drawn(folder), **given).check(),  # as Augmentation
        {"identities_per_batch": "[2, inf)", "images_per_identity": ONE},
    ),
    "data.Synthetic": Case(
        draw,
        {
            **dict.fromkeys(("identities", "val_identities", "test_identities", "images"), DRAWN),
            "seed": SEED,
            "difficulty": SHARE,
            "image_size": PIXELS,
            "workers": "[1, 1024]",
        },
    ),
    "data.TrainTransform": Case(
        plain(data.TrainTransform, data.Augmentation(), image_size=(4, 2)), {"image_size": SIDE}
    ),
    "data.read_image": Case(read_image, {"limits": ANY, "modality": "[0, 1]"}),
    "data.resize_image": Case(
        plain(data.resize_image, np.zeros((4, 4, 3), np.uint8), image_size=(2, 2), interpolation="bilinear"),
        {"image_size": SIDE},
    ),
    "deployment.Embedder": Case(make_embedder, {"batch_size": ONE}),
    "deployment.Gallery": Case(lambda _, **given: deployment.Gallery(embeddings(), **given), {"modality": "[0, 1]"}),
    "deployment.Embedder.from_checkpoint": Case(open_checkpoint, {"batch_size": ONE}),
    "deployment.Gallery.load": Case(load_gallery, {"modality": "[0, 1]"}),
    "deployment.Gallery.search": Case(
        lambda _, **given: deployment.Gallery(embeddings()).search(embeddings(), **given), {"k": ONE, "block_mb": ONE}
    ),
    "deployment.GalleryIndex.build": Case(
        lambda _, **given: deployment.GalleryIndex.build(deployment.Gallery(embeddings()), **given),
        {"recall": "(0, 1]"},
    ),
    "deployment.GalleryIndex.search": Case(lambda _, **given: index().search(embeddings(), **given), {"k": ONE}),
    "deployment.choose_thresholds": Case(
        lambda _, **given: deployment.choose_thresholds(embeddings(), **{"false_positive_rate": 0.5, **given}),
        {"false_positive_rate": "(0, 1)", "gallery_modalities": "[0, 1]"},
    ),
    "deployment.export_checkpoint": Case(export, {"modality": "[0, 1]"}),
    "losses.batch_hard_triplet_loss": Case(plain(losses.batch_hard_triplet_loss, POINTS, LABELS), {"margin": WEIGHT}),
    "losses.center_cluster_loss": Case(plain(losses.center_cluster_loss, POINTS, LABELS), {"margin": WEIGHT}),
    "losses.circle_softmax_logits": Case(
        plain(losses.circle_softmax_logits, POINTS, torch.eye(4), LABELS), {"scale": POSITIVE, "margin": WEIGHT}
    ),
    "losses.cycle_contrastive_loss": Case(
        plain(losses.cycle_contrastive_loss, POINTS, POINTS), {"temperature": POSITIVE}
    ),
    "losses.cycle_return_loss": Case(plain(losses.cycle_return_loss, POINTS, POINTS), {"temperature": POSITIVE}),
    "losses.dense_contrastive_loss": Case(
        plain(losses.dense_contrastive_loss, MAPS, MAPS, MASK, MASK),
        {"temperature": "[0.02, inf)", "parts": SIZE},
    ),
    "losses.permutation_recovery_loss": Case(
        plain(losses.permutation_recovery_loss, torch.rand(1, 3, 3), torch.tensor([[2, 0, 1]])),
        {"rounds": ONE, "temperature": POSITIVE},
    ),
    "losses.prototype_logits": Case(plain(losses.prototype_logits, POINTS, POINTS), {"temperature": POSITIVE}),
    "losses.sinkhorn": Case(plain(losses.sinkhorn, torch.rand(3, 3)), {"rounds": ONE, "temperature": POSITIVE}),
    "losses.weighted_regularized_triplet_loss": Case(
        plain(losses.weighted_regularized_triplet_loss, POINTS, LABELS), {}
    ),
    **{f"methods.{name}": of_method(getattr(methods, name)) for name in ("AGW", "Baseline", "MPANet", "DCLNet")},
    **{f"methods.{name}": of_method(getattr(methods, name)) for name in ("MMGL", "CMAM")},
    "methods.Optimization": Case(
        plain(methods.Optimization, optimizer="sgd"),
        {
            "lr": POSITIVE,
            "weight_decay": WEIGHT,
            "momentum": "[0, 1)",
            "lr_factors": WEIGHT,
            "layer_decay": "(0, 1]",
            "milestones": COUNT,
            "gamma": POSITIVE,
            "warmup_epochs": COUNT,
        },
    ),
    "methods.SourceStage": Case(plain(methods.SourceStage), STAGE),
    "methods.TargetStage": Case(plain(methods.TargetStage), STAGE),
    "metrics.Protocol": Case(plain(metrics.Protocol, "all", ()), {}),
    "metrics.ReRanking": Case(plain(metrics.ReRanking), {**JACCARD, "lambda_value": SHARE}),
    "metrics.RetrievalMetric": Case(plain(metrics.RetrievalMetric, SAMPLES, []), {"block_mb": ONE}),
    "metrics.evaluate": Case(plain(metrics.evaluate, (POINTS, LABELS), (POINTS, LABELS)), {"block_mb": ONE}),
    "metrics.evaluate_file": Case(evaluate_file, {"block_mb": ONE}),
    "metrics.re_rank": Case(
        plain(metrics.re_rank, POINTS, POINTS), {**JACCARD, "lambda_value": SHARE, "block_mb": ONE}
    ),
    "metrics.score_protocols": Case(
        lambda _, **given: metrics.score_protocols(embeddings(), embeddings(), make_protocols(embeddings()), **given),
        {"block_mb": ONE},
    ),
    "modules.BNNeck": Case(plain(modules.BNNeck, num_features=2), {"num_features": SIZE}),
    "modules.Backbone": Case(
        plain(modules.Backbone, "test_resnet", pretrained=False),
        {"last_stride": "[1, 2]", "two_stream_until": "[0, 5]"},
    ),
    "modules.BackboneSettings": Case(
        plain(modules.BackboneSettings), {"patch_stride": ONE, "drop_path": "[0, 1)", "last_stride": "[1, 2]"}
    ),
    "modules.Encoder": Case(
        plain(modules.Encoder, "test_resnet", pretrained=False, pool=modules.GeM()), {"two_stream_until": "[0, 5]"}
    ),
    "modules.GeM": Case(plain(modules.GeM), {"p": POSITIVE}),
    "modules.GrayView": Case(plain(modules.GrayView), {"fake_share": SHARE}),
    "modules.ModalityAlleviation": Case(
        plain(modules.ModalityAlleviation, channels=4), {"channels": SIZE, "reduction": SIZE}
    ),
    "modules.ModalityClassifiers": Case(
        plain(modules.ModalityClassifiers, in_features=2, num_classes=2), {"in_features": SIZE, "num_classes": SIZE}
    ),
    "modules.NonLocal": Case(plain(modules.NonLocal, channels=2), {"channels": SIZE, "inner": SIZE}),
    "modules.PartAwareParsing": Case(
        plain(modules.PartAwareParsing, channels=2, num_classes=2),
        {"channels": SIZE, "num_classes": SIZE, "parts": SIZE},
    ),
    "modules.PartHead": Case(
        plain(modules.PartHead, channels=2, stripes=2, dimension=2),
        {"channels": SIZE, "stripes": SIZE, "dimension": SIZE},
    ),
    "modules.PatternAlignment": Case(plain(modules.PatternAlignment, channels=2), {"channels": SIZE, "parts": SIZE}),
    "modules.PermutationHead": Case(
        plain(modules.PermutationHead, channels=2, stripes=2), {"channels": SIZE, "stripes": SIZE}
    ),
    "modules.PixelClassifiers": Case(
        plain(modules.PixelClassifiers, channels=[2, 3]), {"channels": SIZE, "parts": SIZE}
    ),
    "modules.draw_channels": Case(plain(modules.draw_channels, count=2, seed=[1, 2]), {"count": COUNT, "seed": SEED}),
    "modules.draw_orders": Case(
        plain(modules.draw_orders, count=2, stripes=3, seed=[1, 2]),
        {"count": COUNT, "stripes": SIZE, "seed": SEED},
    ),
    "modules.insert_non_local": Case(
        lambda _, **given: modules.insert_non_local(
            torch.nn.Sequential(torch.nn.Identity()), **{"channels": 2, "count": 1, **given}
        ),
        {"channels": SIZE, "count": COUNT, "inner": SIZE},
    ),
    "modules.mean_rate": Case(plain(modules.mean_rate, epoch=1), {"epoch": ONE, "momentum": SHARE}),
    "modules.pool_stripes": Case(plain(modules.pool_stripes, MAPS, stripes=3), {"stripes": SIZE}),
    "modules.rectify_parts": Case(plain(modules.rectify_parts, MASK, MAPS), {"parts": SIZE}),
    "modules.require_part_rows": Case(
        plain(modules.require_part_rows, height=96, parts=6), {"height": SIZE, "parts": SIZE, "strides": SIZE}
    ),
    "modules.shrink_mask": Case(plain(modules.shrink_mask, MASK, size=(3, 2)), {"size": SIZE}),
    "report.collect": Case(
        lambda _, **given: report.collect(content().embeddings, content().table, **given), {"lists": ONE}
    ),
    "report.write_figures": Case(
        lambda folder, **given: report.write_figures(folder, content(), kinds=["roc"], overwrite=True, **given),
        {"dpi": "[30, 2400]"},
    ),
    "report.write_report": Case(
        lambda folder, **given: report.write_report(folder / "r.html", content(), **given), {"max_mb": POSITIVE}
    ),
    "data.samplers.modality.ModalitySampler": Case(
        plain(modality_sampler.ModalitySampler, SAMPLES, images_per_modality=4), {**RANKS, "images_per_modality": ONE}
    ),
    "data.samplers.pseudo_label.PseudoLabelSampler": Case(
        plain(pseudo_label.PseudoLabelSampler, steps_per_epoch=2), RANKS
    ),
    "data.synthetic.layouts.plan_llcm": plan(layouts.plan_llcm),
    "data.synthetic.layouts.plan_manifest": plan(
        layouts.plan_manifest, val="[0, 1000000]", images_per_camera="[2, 1000000]"
    ),
    "data.synthetic.layouts.plan_market1501": plan(layouts.plan_market1501, distractors="[0, 1000000]"),
    "data.synthetic.layouts.plan_msmt17": plan(layouts.plan_msmt17, images_per_identity="[2, 1000000]"),
    "data.synthetic.layouts.plan_regdb": plan(layouts.plan_regdb),
    "data.synthetic.layouts.plan_sysu_mm01": plan(layouts.plan_sysu_mm01),
    "data.synthetic.layouts.plan_sysu_mm02": plan(layouts.plan_sysu_mm02),
    "data.synthetic.drawing.write_plan": Case(
        write_plan, {"seed": SEED, "difficulty": SHARE, "image_size": PIXELS, "workers": "[1, 1024]"}
    ),
    "data.synthetic.renderer.PedestrianRenderer": Case(
        plain(renderer.PedestrianRenderer), {"seed": SEED, "difficulty": SHARE, "image_size": PIXELS}
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("values")


def test_everything_that_takes_a_number_or_a_choice_is_tried_or_left_alone_for_a_reason():
    assert set(FOUND) == {*CASES, *LEFT_ALONE}
    assert not set(CASES) & set(LEFT_ALONE)


@pytest.mark.parametrize("name", CASES)
def test_wrong_values_are_refused(name, folder):
    if "GalleryIndex" in name:
        pytest.importorskip("faiss")
    case, told = CASES[name], []
    case.make(folder)
    for argument, hint in list_arguments(FOUND[name]).items():
        for value in list_bad(hint, Range.read(case.ranges.get(argument, ANY))):
            try:
                case.make(folder, **{argument: value})
                said = "was taken"
            except VIReIDError as error:
                said = "" if says(str(error), argument, value) else str(error)
            except Exception as error:  # any other is what this test is about
                said = repr(error)
            told += [f"{argument}={value!r}: {said}"] if said else []
    assert not told, "\n".join(told)
