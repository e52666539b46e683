import math

import torch
import torch.nn.functional as F

from polygrain.parts.heads import Prototypes, mlp, normal_init, truncated_normal_init


def test_layers_are_numbered_as_in_released_checkpoints() -> None:
    plain = mlp((4, 5, 6, 3), activation="gelu", bias=False, last_bias=False)
    assert list(plain.state_dict()) == ["0.weight", "2.weight", "4.weight"]
    normed = mlp((4, 5, 3), activation="relu", norm="batch")
    assert {"0.weight", "0.bias", "1.running_mean", "3.weight", "3.bias"} <= set(normed.state_dict())


def test_truncated_normal_init_gives_the_deviation_asked_for_and_no_bias() -> None:
    torch.manual_seed(0)
    layers = mlp((100, 200, 100), activation="gelu")
    truncated_normal_init(layers)
    assert abs(layers[0].weight.std() - 0.02) < 5e-4 and layers[0].bias.abs().max() == 0


def test_a_linear_layer_left_alone_starts_with_the_deviation_of_pytorch() -> None:
    torch.manual_seed(0)
    predictor = mlp((256, 4096, 256), activation="gelu", bias=False, last_bias=False)
    # uniform within 1 / sqrt(fan in): deviation 1 / sqrt(3 fan in), 0.0361 and 0.0090 for these two layers
    assert abs(predictor[0].weight.std() - 1 / math.sqrt(3 * 256)) < 1e-4
    assert abs(predictor[2].weight.std() - 1 / math.sqrt(3 * 4096)) < 1e-4
    assert abs(Prototypes(256, 4096, fixed_norm=False).weight_v.std() - 0.0361) < 1e-4


def test_prototypes_have_the_length_of_their_gain_whatever_their_weights() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(6, 9, fixed_norm=False)
    with torch.no_grad():
        prototypes.weight_g.uniform_(1, 2)
    vectors = torch.randn(2, 3, 6)
    rows = prototypes.weight_g * F.normalize(prototypes.weight_v, dim=1)
    torch.testing.assert_close(prototypes(vectors), vectors @ rows.T)


def test_fixed_norms_are_not_trained() -> None:
    assert [name for name, p in Prototypes(6, 9, fixed_norm=True).named_parameters() if p.requires_grad] == ["weight_v"]


def test_the_last_batch_norm_has_gain_and_offset_as_asked_for() -> None:
    kinds = {"gain": ["3.weight"], "plain": [], True: []}
    for last_norm, trained in kinds.items():
        layers = mlp((4, 5, 3), activation="relu", last_norm=last_norm, bias=False, last_bias=False)  # type: ignore[arg-type]
        assert [name for name, p in layers.named_parameters() if p.requires_grad] == ["0.weight", "2.weight", *trained]
        outputs = layers(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(outputs.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_normal_init_gives_the_deviation_asked_for_and_no_bias() -> None:
    torch.manual_seed(0)
    layers = mlp((100, 200, 100), activation="relu")
    normal_init(layers, 0.01)
    assert abs(layers[2].weight.std() - 0.01) < 3e-4 and layers[2].bias.abs().max() == 0
