"""Every method's embedding is a graph for any batch: torch.export, torch.compile and TorchScript."""

from __future__ import annotations

import io

import pytest
import torch
from references.deployment import SIZE, make_streams_differ

from vireid_lightning import methods
from vireid_lightning.deployment.tracing import ServedNetwork, trace_graph, trace_script
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, ReIDModule

METHODS = [
    item
    for name in methods.__all__
    if isinstance(item := getattr(methods, name), type) and issubclass(item, ReIDModule) and item is not ReIDModule
]
CASES = [pytest.param(method, {}, id=method.__name__) for method in METHODS]
CASES.append(pytest.param(CMAM, {"embedding": "both"}, id="CMAM-both"))


def build(method, **arguments):
    torch.manual_seed(0)
    classes = {} if method in (CMAM, MMGL) else {"num_classes": 3}
    return make_streams_differ(method(**classes, backbone="test_resnet", pretrained=False, **arguments))


def batch(count):
    images = torch.randint(0, 256, (count, *SIZE, 3), dtype=torch.uint8)
    return images, torch.arange(count) % 3 % 2


def embed(method, images, modality):
    """Embed one image at a time, so that no batch decides anything."""
    network = ServedNetwork(method)
    with torch.no_grad():
        return torch.cat([network(images[i : i + 1], modality[i : i + 1]) for i in range(len(images))])


def require_close(found, expected):
    # Some fifty float32 layers in another order of summation, against each embedding's own length.
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("method", "arguments"), CASES)
def test_every_method_is_exported_for_both_modalities_and_any_batch(method, arguments):
    module = build(method, **arguments)
    graph = trace_graph(ServedNetwork(module), SIZE).module()
    written = io.BytesIO()
    torch.jit.save(trace_script(ServedNetwork(module), SIZE), written)  # refuses what exists in this process alone
    written.seek(0)
    script = torch.jit.load(written)
    for count in (1, 4):
        images, modality = batch(count)
        for order in (modality, 1 - modality):
            expected = embed(module, images, order)
            require_close(graph(images, order), expected)
            require_close(script(images, order), expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_methods_embed_is_compiled_in_one_graph(method):
    module = build(method)
    # "eager" captures the graph as every backend does, and runs it as it is; inductor would compile C++ for minutes.
    compiled = torch.compile(module.embed, backend="eager", fullgraph=True)
    with torch.no_grad():
        for count in (2, 5):
            images, modality = torch.randn(count, 3, *SIZE), torch.arange(count) % 2
            require_close(compiled(images, modality), module.embed(images, modality))


@pytest.mark.slow
def test_a_compiled_embed_gives_the_same_through_every_stage_of_the_compiler():
    module = build(AGW)
    compiled = torch.compile(module.embed, backend="aot_eager", fullgraph=True)
    images, modality = torch.randn(4, 3, *SIZE), torch.tensor([1, 0, 0, 1])
    with torch.no_grad():
        require_close(compiled(images, modality), module.embed(images, modality))


def test_a_compiled_training_step_keeps_each_modalitys_own_statistics():
    module, again = build(Baseline).train(), build(Baseline).train()
    images, modality = torch.randn(4, 3, *SIZE), torch.tensor([0, 0, 1, 1])
    torch.compile(module.backbone.features, backend="eager")(images, modality)
    again.backbone.features(images, modality)
    for (name, found), expected in zip(module.state_dict().items(), again.state_dict().values()):
        torch.testing.assert_close(found, expected, msg=name)


def test_a_network_of_one_modality_holds_no_part_of_the_other():
    module = build(AGW)
    images, modality = batch(4)
    for kind in (0, 1):
        network = ServedNetwork(module, modality=kind)
        with torch.no_grad():
            assert torch.equal(network(images), ServedNetwork(module)(images, torch.full_like(modality, kind)))
        names = [name for name, _ in network.named_parameters()]
        assert not [name for name in names if "visible" in name or "infrared" in name]
    stem = sum(parameter.numel() for parameter in module.backbone.stages[0].visible.parameters())
    numbers = [sum(p.numel() for p in part.parameters()) for part in (network, ServedNetwork(module))]
    assert numbers[1] - numbers[0] == stem
    assert "infrared" in "".join(module.state_dict())  # the method itself is not changed


@pytest.mark.parametrize(("method", "arguments"), CASES)
def test_half_precision_is_near_and_halves_the_backbone(method, arguments):
    module = build(method, **arguments)
    images, modality = batch(3)
    network = ServedNetwork(module, half=True)
    with torch.no_grad():
        found, expected = network(images, modality), ServedNetwork(module)(images, modality)
    assert found.dtype == torch.float32
    assert 0 < ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 2e-2
    kinds = {parameter.dtype for name, parameter in network.named_parameters() if ".backbone.stages." in name}
    assert kinds == {torch.float16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


class Undecided(Baseline):
    """Embeds by the value of a tensor."""

    def embed(self, images, modality):
        found = super().embed(images, modality)
        return found if images.mean() > 0 else -found


def test_a_graph_that_cannot_be_traced_is_told_in_a_sentence():
    network = ServedNetwork(build(Undecided))
    with pytest.raises(
        VIReIDError, match=r"The network of Undecided cannot be traced \(\w+: .*--format safetensors"
    ) as told:
        trace_graph(network, SIZE)
    assert len(str(told.value)) < 600
    assert "\n" not in str(told.value)
