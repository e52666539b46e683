import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polygrain.methods.mugs import Mugs
from polygrain.methods.optimization import Optimization
from polygrain.methods.vicregl import VICRegL
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.heads import Prototypes
from polygrain.schedules import Time, constant
from polygrain.train.optimizers import LARC, LARS, build_optimizer, clip_gradients, parameter_groups, set_schedules


def parameter(values: list[float] | list[list[float]], gradient: list[float] | list[list[float]]) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    made.grad = torch.tensor(gradient, dtype=torch.float64)
    return made


def adamw(**changes: float) -> Optimization:
    return Optimization(optimizer="adamw", lr=constant(0.1), weight_decay=constant(0.04), **changes)  # type: ignore[arg-type]


def test_two_steps_of_lars_are_those_of_the_authors_code() -> None:
    matrix = parameter([[1, 2], [3, 4]], [[0.1, -0.2], [0.3, 0.4]])
    vector = parameter([1, 2], [0.1, -0.2])
    optimizer = LARS([matrix, vector], lr=0.5, weight_decay=1e-6)
    expected = (
        ([0.99949999867, 2.00099998227, 2.998499996, 3.99799999467], [0.95, 2.1]),
        ([0.99855017944, 2.00289958313, 2.99565053832, 3.99420071776], [0.855, 2.29]),
    )
    for of_matrix, of_vector in expected:
        optimizer.step()
        assert matrix.flatten().tolist() == pytest.approx(of_matrix, abs=5e-10, rel=0)
        assert vector.tolist() == pytest.approx(of_vector, abs=1e-12)


def test_lars_scales_nothing_where_weights_or_gradients_are_zero_and_leaves_gradients_alone() -> None:
    fresh = parameter([[0, 0]], [[0.3, 0.4]])
    still = parameter([[1, 2]], [[0, 0]])
    LARS([fresh, still], lr=0.5).step()
    assert fresh.tolist() == [[-0.15, -0.2]]
    assert still.tolist() == [[1, 2]]
    assert fresh.grad is not None and fresh.grad.tolist() == [[0.3, 0.4]]


def test_lars_passes_over_parameters_without_gradient() -> None:
    frozen, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    moved.grad = torch.ones(3)
    optimizer = LARS([frozen, moved], lr=1.0)
    optimizer.step()
    assert frozen.tolist() == [[1, 1], [1, 1]]
    assert moved.tolist() == [0, 0, 0]
    assert frozen not in optimizer.state


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 4, 2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 4)
        self.prototypes = Prototypes(4, 6, fixed_norm=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_all_but_vectors_and_biases_decay_and_frozen_parameters_are_left_out() -> None:
    toy = Toy()
    nested = nn.ModuleDict({"encoder": toy})
    names = {parameter: name.removeprefix("encoder.") for name, parameter in nested.named_parameters()}
    groups = {g["name"]: {names[p] for p in g["params"]} for g in parameter_groups(nested, adamw())}
    assert groups == {
        "normal": {"pos_embed", "cls_token", "head.weight", "prototypes.weight_v", "prototypes.weight_g"},
        "patch_embed": {"patch_embed.proj.weight"},
        "no_wd": {"norm.weight", "norm.bias", "head.bias"},
        "patch_embed_no_wd": {"patch_embed.proj.bias"},
    }


def test_schedules_reach_every_group_with_its_own_factor() -> None:
    nested = nn.ModuleDict({"encoder": Toy()})
    optimization = Optimization(
        optimizer="adamw",
        lr=lambda time: 0.1 * time.step,
        weight_decay=lambda time: 0.01 * time.step,
        patch_embed_lr=0.2,
    )
    optimizer = build_optimizer(nested, optimization)  # type: ignore[arg-type]  # any module has parameters
    set_schedules(optimizer, optimization, Time(step=3, steps_per_epoch=10, epochs=1))
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates["normal"] == pytest.approx((0.3, 0.03))
    assert rates["patch_embed"] == pytest.approx((0.06, 0.03))
    assert rates["no_wd"] == pytest.approx((0.3, 0))
    assert rates["patch_embed_no_wd"] == pytest.approx((0.06, 0))


def test_first_step_of_adamw_moves_by_the_rate_and_shrinks_what_decays() -> None:
    nested = nn.ModuleDict({"encoder": nn.Linear(2, 2)})
    before = [p.detach().clone() for p in nested.parameters()]
    optimization = Optimization(optimizer="adamw", lr=constant(0.01), weight_decay=constant(0.1))
    optimizer = build_optimizer(nested, optimization)  # type: ignore[arg-type]  # any module has parameters
    set_schedules(optimizer, optimization, Time(step=0, steps_per_epoch=1, epochs=1))
    for parameter in nested.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    weight, bias = nested.parameters()
    torch.testing.assert_close(weight, before[0] * (1 - 0.01 * 0.1) - 0.01)
    torch.testing.assert_close(bias, before[1] - 0.01)


def test_convnext_small_vicregl_has_207_tensors_without_and_119_with_decay() -> None:
    with torch.device("meta"):
        method = VICRegL().build(Encoder(EncoderSettings(name="convnext_small_vicregl")))
    sizes = {g["name"]: len(g["params"]) for g in parameter_groups(method, adamw())}
    # the authors' 119 and 207 include their online classifier, one weight and one bias
    assert sizes == {"normal": 118, "no_wd": 206}


def test_vit_small_mugs_has_the_authors_group_sizes() -> None:
    with torch.device("meta"):
        method = Mugs(queue_size=8, memory_size=8).build(Encoder(EncoderSettings(name="vit_small_patch16_224")))
    sizes = {g["name"]: len(g["params"]) for g in parameter_groups(method, adamw())}
    assert sizes == {"normal": 69, "patch_embed": 1, "no_wd": 109, "patch_embed_no_wd": 1}


def gradients() -> list[Tensor]:
    return [parameter([[0, 0]], [[3, 4]]), parameter([0, 0], [0.6, 0.8]), parameter([0], [0])]


def test_clipping_each_tensor_scales_only_the_long_ones() -> None:
    parameters = gradients()
    total = clip_gradients(parameters, 2.0, each=True)
    assert float(total) == pytest.approx(math.sqrt(26))
    scaled = [p.grad.flatten().tolist() for p in parameters if p.grad is not None]
    assert scaled[0] == pytest.approx([3 * 2 / (5 + 1e-6), 4 * 2 / (5 + 1e-6)])
    assert scaled[1:] == [[0.6, 0.8], [0]]


def test_clipping_by_the_joint_norm_is_torchs() -> None:
    parameters, others = gradients(), gradients()
    total = clip_gradients(parameters, 2.0, each=False)
    expected = nn.utils.clip_grad_norm_(others, 2.0)
    torch.testing.assert_close(total, expected)
    for one, other in zip(parameters, others, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_without_a_bound_clipping_only_measures() -> None:
    parameters = gradients()
    assert float(clip_gradients(parameters, None, each=True)) == pytest.approx(math.sqrt(26))
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == [[[3, 4]], [0.6, 0.8], [0]]


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_larc_follows_its_formula_for_matrices_vectors_and_fresh_biases(decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator), torch.zeros(2)]
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    optimizer = LARC(parameters, lr=0.5, weight_decay=decay)
    velocities = [np.zeros(weight.shape) for weight in weights]
    expected = [weight.double().numpy() for weight in weights]
    for step in range(3):
        for i, parameter in enumerate(parameters):
            gradient = torch.full_like(parameter, 0.1 * (step + 1)) + 0.01 * torch.arange(parameter.numel()).view_as(
                parameter
            )
            parameter.grad = gradient
            p, g = expected[i], gradient.double().numpy()
            length, slope = np.linalg.norm(p), np.linalg.norm(g)
            if length > 0:
                g = (g + decay * p) * (1e-3 * length / (slope + decay * length + 1e-8))
            velocities[i] = 0.9 * velocities[i] + g
            expected[i] = p - 0.5 * velocities[i]
        optimizer.step()
    for parameter, wanted in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=2e-5, atol=1e-7)


def test_larc_and_lars_part_in_the_fourth_digit_when_the_gradient_is_small() -> None:
    moved = []
    for kind in (LARS, LARC):
        parameter = torch.nn.Parameter(torch.full((2, 2), 1.0))
        parameter.grad = torch.tensor([[1e-3, -1e-3], [1e-3, 1e-3]])
        kind([parameter], lr=1.0, weight_decay=1e-6).step()
        moved.append(1 - parameter.detach()[0, 0].item())
    # LARS: trust |p| (g + wd p) / |g + wd p| with |p| = 2, |g + wd p| = sqrt(3 * 1.001e-3^2 + .999e-3^2)
    lars = 1e-3 * 2 * 1.001e-3 / math.sqrt(3 * 1.001e-3**2 + 0.999e-3**2)
    larc = 1e-3 * 2 * 1.001e-3 / (2e-3 + 1e-6 * 2 + 1e-8)
    assert moved == pytest.approx([lars, larc], rel=1e-4) and abs(lars / larc - 1) > 3e-4


def test_groups_of_other_papers_decay_everything_keep_a_rate_or_slow_down_vectors() -> None:
    nested = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "predictor": torch.nn.Linear(2, 2)})
    chosen = Optimization(
        optimizer="sgd",
        lr=lambda time: 0.2,
        weight_decay=lambda time: 1e-4,
        decay_all=True,
        one_dimension_lr=0.5,
        constant_lr=0.05,
        constant_lr_of="predictor",
    )
    optimizer = build_optimizer(nested, chosen)  # type: ignore[arg-type]
    set_schedules(optimizer, chosen, Time(step=0, steps_per_epoch=1, epochs=1))
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "normal": (0.2, 1e-4),
        "no_wd": (0.1, 1e-4),
        "constant": (0.05, 1e-4),
        "constant_no_wd": (0.05, 1e-4),
    }
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9
