import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.layer_decay import last_layer, layer_groups, layer_ids

DEPTH = 4


def vit() -> Encoder:
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": DEPTH, "num_heads": 3}
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments))


class Classifier(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, 5)


ENCODERS = {
    "vit": vit,
    "resnet18": lambda: Encoder(EncoderSettings(name="resnet18")),
    "convnext": lambda: Encoder(EncoderSettings(name="convnext_atto")),
}


def test_layers_of_a_vit_are_counted_as_beit_does() -> None:
    encoder = vit()
    expected = {}
    for name, _ in encoder.named_parameters():
        part = name.split(".")
        if part[1] == "blocks":
            expected[name] = int(part[2]) + 1
        else:
            expected[name] = DEPTH + 1 if part[1] == "norm" else 0
    assert layer_ids(encoder) == expected


@pytest.mark.parametrize(("name", "prefix"), [("resnet18", "model.layer"), ("convnext", "model.stages.")])
def test_stages_of_a_cnn_are_layers(name: str, prefix: str) -> None:
    first = 0 if name == "convnext" else 1
    for parameter, layer in layer_ids(ENCODERS[name]()).items():
        if parameter.startswith(prefix):
            assert layer == int(parameter.removeprefix(prefix)[0]) - first + 1
        else:
            assert layer == (5 if "norm" in parameter.split(".")[-2] and not parameter.startswith("model.stem") else 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_each_trainable_parameter_is_in_one_group(name: str) -> None:
    model = Classifier(ENCODERS[name]())
    next(iter(model.encoder.parameters())).requires_grad = False
    groups = layer_groups(model, model.encoder, lr=1.0, weight_decay=0.05, layer_decay=0.5)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ENCODERS)
def test_learning_rates_grow_with_depth_by_the_decay(name: str) -> None:
    model = Classifier(ENCODERS[name]())
    last = last_layer(model.encoder)
    rates = {g["layer"]: g["lr"] for g in layer_groups(model, model.encoder, lr=2.0, weight_decay=0, layer_decay=0.65)}
    assert rates == pytest.approx({layer: 2.0 * 0.65 ** (last - layer) for layer in range(last + 1)})
    assert list(rates.values()) == sorted(rates.values())


def test_embeddings_of_a_vit_of_twelve_blocks_learn_as_slowly_as_published() -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 12, "num_heads": 3}
    model = Classifier(Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments)))
    groups = layer_groups(model, model.encoder, lr=1.0, weight_decay=0.05, layer_decay=0.65)
    assert groups[0]["lr"] == pytest.approx(0.0037, abs=5e-5)
    assert groups[-1]["lr"] == 1.0


def test_a_decay_of_one_is_plain_adamw_to_the_last_bit() -> None:
    model = Classifier(vit())
    plain = copy.deepcopy(model)
    vectors = [p for n, p in plain.named_parameters() if p.ndim < 2 or n.endswith(("cls_token", "pos_embed"))]
    matrices = [p for p in plain.parameters() if all(p is not vector for vector in vectors)]
    reference = AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=1e-2, weight_decay=0.05)
    optimizer = AdamW(layer_groups(model, model.encoder, lr=1e-2, weight_decay=0.05, layer_decay=1.0))
    pixels = torch.randn(2, 3, 32, 32)
    for _ in range(2):
        for trained, how in ((model, optimizer), (plain, reference)):
            how.zero_grad()
            trained.head(trained.encoder.features(pixels).pooled).square().sum().backward()
            how.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_the_decay_outlives_a_scheduler_of_torch() -> None:
    model = Classifier(vit())
    optimizer = AdamW(layer_groups(model, model.encoder, lr=1.0, weight_decay=0.05, layer_decay=0.5))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.1 * 0.5 ** (DEPTH + 1 - group["layer"]) for group in optimizer.param_groups]
    )


def test_vectors_and_positions_get_no_weight_decay_unless_asked() -> None:
    model = Classifier(vit())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for asked in (False, True):
        groups = layer_groups(model, model.encoder, lr=1.0, weight_decay=0.05, layer_decay=0.5, decay_positions=asked)
        decayed = {names[id(p)]: p for group in groups if group["weight_decay"] for p in group["params"]}
        assert all(parameter.ndim > 1 for parameter in decayed.values())
        assert ("encoder.model.pos_embed" in decayed) == ("encoder.model.cls_token" in decayed) == asked
