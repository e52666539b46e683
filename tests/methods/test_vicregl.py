import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polygrain.methods import METHODS
from polygrain.methods.adding import LocalSettings
from polygrain.methods.base import Method
from polygrain.methods.mugs import Mugs
from polygrain.methods.vicreg import VICReg
from polygrain.methods.vicregl import VICRegL
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time
from polygrain.train.optimizers import build_optimizer, set_schedules
from polygrain.views import Crops
from tests.methods.views import part, random_views
from tests.ranks import run_ranks

NOW = Time(step=0, steps_per_epoch=10, epochs=1)
SMALL: dict[str, Any] = {"large_size": 64, "expander_width": 16}
SMALL_L: dict[str, Any] = {**SMALL, "small_size": 32, "local_width": 8}


def encoder(name: str = "vit_mini_64", seed: int = 0, **arguments: Any) -> Encoder:
    torch.manual_seed(seed)
    if name == "vit_mini_64":
        arguments = {"depth": 1, "embed_dim": 24, "num_heads": 2} | arguments
    return Encoder(EncoderSettings(name=name, arguments=arguments))


def build(settings: VICReg | VICRegL, of: Encoder) -> Method:
    torch.manual_seed(1)
    return settings.build(of)


def test_the_vicreg_family_is_offered() -> None:
    assert METHODS["vicreg"] is VICReg
    assert METHODS["vicregl"] is VICRegL


def test_convnext_gets_small_crops_layer_norm_and_joint_passes() -> None:
    with torch.device("meta"):
        method = VICRegL().build(Encoder(EncoderSettings(name="convnext_small_vicregl")))
    assert [(c.name, c.count, c.size, c.scale, c.recipes) for c in method.crops] == [
        ("large", 2, 224, (0.4, 1.0), ("byol_a", "byol_b")),
        ("small", 6, 96, (0.08, 0.4), ("byol_a", "byol_b")),
    ]
    assert not method.apart
    assert method.weights == {"global": 0.75, "local": 0.25}
    shapes = {name: tuple(p.shape) for name, p in method.objectives.named_parameters() if p.ndim > 1}
    assert shapes == {
        "global.expander.0.weight": (8192, 768),
        "global.expander.3.weight": (8192, 8192),
        "global.expander.6.weight": (8192, 8192),
        "local.projector.0.weight": (512, 768),
        "local.projector.3.weight": (512, 512),
        "local.projector.6.weight": (512, 512),
    }
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in method.objectives.items()}
    assert count == {"global": pytest.approx(140.56e6, rel=1e-4), "local": pytest.approx(0.92e6, rel=5e-3)}


def test_resnet_gets_two_crops_batch_norm_and_a_pass_for_each_view() -> None:
    with torch.device("meta"):
        method = VICRegL(optimizer="lars").build(Encoder(EncoderSettings(name="resnet50")))
    assert [(c.count, c.size, c.scale) for c in method.crops] == [(2, 224, (0.08, 1.0))]
    assert method.apart
    assert {type(m) for m in method.objectives.modules() if "Norm" in type(m).__name__} == {nn.BatchNorm1d}


def test_one_criterion_alone_has_no_parameters_of_the_other() -> None:
    for alpha, absent in ((1.0, "local"), (0.0, "global")):
        method = build(VICRegL(alpha=alpha, **SMALL_L), encoder())
        assert absent not in method.objectives
        assert not [key for key in method.state_dict() if absent in key]
        assert list(method.weights.values()) == [1.0]


@pytest.mark.parametrize("name", ["vit_mini_64", "resnet18_64"])
def test_vicregl_of_two_views_at_alpha_1_is_vicreg_with_half_the_covariance_weight(name: str) -> None:
    arguments = {} if name == "vit_mini_64" else {"channels": (8, 8, 8, 16)}
    vicregl = build(VICRegL(alpha=1, small_crops=0, **SMALL_L), encoder(name, **arguments))
    vicreg = build(VICReg(covariance=0.5, **SMALL), encoder(name, **arguments))
    views = random_views(vicreg.crops, 6)
    assert vicregl.crops == vicreg.crops
    ours, base = vicregl(views, NOW), vicreg(views, NOW)
    assert {name: float(t.detach()) for name, t in ours.items()} == {n: float(t.detach()) for n, t in base.items()}


@pytest.mark.parametrize("name", ["vit_mini_64", "resnet18_64", "convnext_femto_64"])
def test_every_parameter_gets_a_gradient_and_the_loss_is_the_weighted_sum(name: str) -> None:
    arguments = {"resnet18_64": {"channels": (8, 8, 8, 16)}, "convnext_femto_64": {"dims": (8, 8, 8, 16)}}
    method = build(VICRegL(small_crops=2, **SMALL_L), encoder(name, **arguments.get(name, {})))
    terms = method(random_views(method.crops, 4), NOW)
    terms["loss"].backward()
    assert not [n for n, p in method.named_parameters() if p.grad is None]
    global_terms, local_terms = (
        sum(float(value.detach()) for key, value in terms.items() if key.startswith(name))
        for name in ("global/", "local/")
    )
    assert float(terms["loss"].detach()) == pytest.approx(0.75 * global_terms + 0.25 * local_terms)


def test_training_lowers_the_loss_with_both_optimizers() -> None:
    for optimizer, base_lr, share in (("adamw", 0.1, 0.9), ("lars", 1.0, 0.985)):
        settings = VICRegL(optimizer=optimizer, base_lr=base_lr, warmup_epochs=0, small_crops=2, **SMALL_L)  # type: ignore[arg-type]
        method = build(settings, encoder())
        optimization = settings.optimization(RunLength(images=80, batch_size=8, epochs=10, steps_per_epoch=10))
        optimizer_ = build_optimizer(method, optimization)
        views = random_views(method.crops, 8)
        losses = []
        for step in range(8):
            set_schedules(optimizer_, optimization, Time(step, 10, 10))
            loss = method(views, Time(step, 10, 10))["loss"]
            optimizer_.zero_grad()
            loss.backward()
            optimizer_.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < share * losses[0], (optimizer, losses)


LENGTHS = [  # recipe, (batch, epochs), (steps in all, warm-up steps), highest lr: as the authors' code has them
    (VICRegL(optimizer="lars"), (512, 100), (250227, 25022), 0.6),
    (VICRegL(optimizer="lars", base_lr=0.2), (2048, 300), (187670, 6255), 1.6),
    (VICRegL(base_lr=7.5e-4), (384, 100), (333637, 33363), 1.125e-3),
    (VICRegL(), (576, 400), (889699, 22242), 1.125e-3),
    (VICReg(), (512, 100), (250227, 25022), 0.6),
]


@pytest.mark.parametrize(("settings", "size", "steps", "peak"), LENGTHS)
def test_learning_rate_rises_peaks_and_ends_at_the_authors_steps(
    settings: VICReg | VICRegL, size: tuple[int, int], steps: tuple[int, int], peak: float
) -> None:
    batch, epochs = size
    total, warmup = steps
    length = RunLength(1281167, batch, epochs, -(-1281167 // batch))
    lr = settings.optimization(length).lr

    def at(step: int) -> float:
        return lr(Time(step, length.steps_per_epoch, epochs))

    assert at(0) == 0
    assert at(warmup - 1) == pytest.approx(peak * (warmup - 1) / warmup)
    assert at(warmup) == pytest.approx(peak)
    assert at(warmup + 1) < at(warmup)
    assert at((total + warmup) // 2) == pytest.approx(0.5005 * peak, rel=1e-3)
    assert at(total - 1) > at(total)
    assert at(total) == at(total + 500) == pytest.approx(peak * 1e-3)


def test_weight_decay_is_that_of_the_optimizers_paper_unless_given() -> None:
    length = RunLength(1000, 10, 10, 100)
    decays = {
        settings: settings.optimization(length).weight_decay(NOW)
        for settings in (VICRegL(), VICRegL(optimizer="lars"), VICRegL(optimizer="lars", weight_decay=1e-4), VICReg())
    }
    assert list(decays.values()) == [0.05, 1e-6, 1e-4, 1e-6]


def test_official_compat_changes_the_local_terms_alone() -> None:
    methods = [build(VICRegL(compat=compat, **SMALL_L), encoder()) for compat in ("fixed", "official")]  # type: ignore[arg-type]
    fixed, official = (method(random_views(method.crops, 6), NOW) for method in methods)
    same = {key for key in fixed if torch.equal(fixed[key], official[key])}
    assert {key for key in same if key.startswith("global")} == {key for key in fixed if key.startswith("global")}
    assert "local/invariance" not in same


def test_alpha_outside_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha is 1\.5; it must be between 0"):
        VICRegL(alpha=1.5, **SMALL_L).build(encoder())


# --- the local objective on other methods


def mugs() -> Method:
    settings = Mugs(
        large_size=64, small_size=32, small_crops=2, hidden=16, predictor_hidden=16, out=8, prototype_dim=8,
        queue_size=32, memory_size=32, prototypes=16, neighbours=2,
    )  # fmt: skip
    return settings.build(encoder())


@pytest.mark.parametrize("make", [mugs, lambda: VICReg(**SMALL).build(encoder())])
def test_local_objective_can_be_added_to_another_method(make: Any) -> None:
    method = make()
    before = dict(method.weights)
    LocalSettings(weight=0.25, width=8).add_to(method)
    assert method.weights == {**before, "local": 0.25}
    terms = method(random_views(method.crops, 4), NOW)
    local = terms["local/invariance"] + terms["local/variance"] + terms["local/covariance"]
    others = sum(
        method.weights[k.split("/")[0]] * v for k, v in terms.items() if "/" in k and not k.startswith("local/")
    )
    torch.testing.assert_close(terms["loss"], others + 0.25 * local)
    method.zero_grad()
    local.backward()
    assert all(p.grad is not None for p in method.objectives["local"].parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.student.parameters())


def test_added_local_objective_matches_large_crops_alone_unless_told_otherwise() -> None:
    cheap, whole = (LocalSettings(weight=1, width=8, small_crops=small).build(encoder()) for small in (False, True))
    views = random_views([Crops(name="v", count=2, size=64, scale=(0.4, 1), recipes=("byol_a",))], 4)["v"]
    views += random_views([Crops(name="v", count=2, size=32, scale=(0.4, 1), recipes=("byol_a",))], 4)["v"]
    seen = [encoder()(view) for view in views]
    whole.load_state_dict(cheap.state_dict())
    of_two = [float(t.detach()) for t in cheap(seen[:2], (), NOW).values()]
    assert [float(t.detach()) for t in cheap(seen, (), NOW).values()] == of_two
    assert [float(t.detach()) for t in whole(seen, (), NOW).values()] != pytest.approx(of_two)


def test_local_objective_is_refused_where_the_student_sees_one_view() -> None:
    method = VICReg(**SMALL).build(encoder())
    method.student_sees = tuple(dataclasses.replace(c, count=1) for c in method.student_sees)
    with pytest.raises(ValueError, match="cannot add 'local': local matching needs at least two views"):
        LocalSettings(weight=0.25, width=8).add_to(method)


def test_local_objective_is_refused_where_there_is_one_already() -> None:
    with pytest.raises(ValueError, match="already has an objective 'local'"):
        LocalSettings(weight=0.25, width=8).add_to(VICRegL(**SMALL_L).build(encoder()))


# --- two processes


def losses_and_gradients(settings: VICReg | VICRegL) -> tuple[dict[str, float], list[Tensor]]:
    """Terms and gradient of one rank's images, averaged over ranks as data-parallel training does; or of all images."""
    import torch.distributed as dist

    method = build(settings, encoder()).double()
    views = random_views(method.crops, 8, dtype=torch.float64)
    if dist.is_initialized():
        views = part(views, slice(dist.get_rank() * 4, dist.get_rank() * 4 + 4))
    terms = method(views, NOW)
    terms["loss"].backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    if dist.is_initialized():
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    return {name: float(t.detach()) for name, t in terms.items()}, gradients


RECIPES = [
    VICReg(**SMALL),
    VICRegL(small_crops=2, num_matches=(9, 3), all_feature_matches=False, **SMALL_L),
    VICRegL(small_crops=2, spread_once=True, **SMALL_L),
]


def all_losses_and_gradients() -> list[tuple[dict[str, float], list[Tensor]]]:
    return [losses_and_gradients(settings) for settings in RECIPES]


def test_two_processes_have_the_terms_and_gradients_of_one() -> None:
    alone = all_losses_and_gradients()
    for of_rank in run_ranks(all_losses_and_gradients):
        for (terms, gradients), (rank_terms, rank_gradients) in zip(alone, of_rank, strict=True):
            assert rank_terms == pytest.approx(terms, rel=1e-10)
            for one, other in zip(gradients, rank_gradients, strict=True):
                assert (one - other).norm() < 1e-6 * one.norm() + 1e-12  # timm resizes position codes in float32
