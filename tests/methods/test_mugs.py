"""Mugs against three optimisation steps of the authors' code, and what its settings do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from polygrain import distributed
from polygrain.methods.base import Method
from polygrain.methods.mugs import Mugs
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time, constant
from polygrain.train.optimizers import build_optimizer, clip_gradients, set_schedules
from polygrain.views import View
from polygrain.weights.importing import import_full
from tests.methods.views import part, random_views
from tests.ranks import run_ranks
from tests.references.dense_mugs import dense_info_nce

TOY = Mugs(
    hidden=64,
    predictor_hidden=80,
    out=32,
    prototype_dim=24,
    prototypes=96,
    queue_size=128,
    memory_size=40,
    neighbours=4,
    small_crops=3,
    teacher_temperature=0.07,
    teacher_temperature_epochs=2,
)
SMALL = replace(TOY, large_size=32, small_size=16)
SECOND_EPOCH = Time(100, 100, 10)


def golden_encoder() -> Encoder:
    arguments = {"patch_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=arguments))


def small_encoder(name: str = "vit_small_patch16_224", **arguments: Any) -> Encoder:
    if name.startswith("vit"):
        arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}
    position = "dino" if name.startswith("vit") else "timm"
    return Encoder(EncoderSettings(name=name, position=position, arguments=arguments))


def small_method(settings: Mugs = SMALL, seed: int = 0, **arguments: Any) -> Method:
    torch.manual_seed(seed)
    return settings.build(small_encoder(**arguments)).train()


# the authors' steps


def golden_views(inputs: Any, step: int) -> dict[str, list[View]]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    strong = ~torch.from_numpy(inputs[f"s{step}.weak"])

    def view(crop: int) -> View:
        pixels = torch.from_numpy(inputs[f"s{step}.crop{crop}"]) / 255
        none = torch.zeros(len(pixels), dtype=torch.bool)
        normalised = (pixels - mean[:, None, None]) / std[:, None, None]
        return View(normalised, torch.zeros(len(pixels), 4), none, strong, torch.arange(len(pixels)))

    return {"teacher": [view(0), view(1)], "student": [view(2), view(3)], "small": [view(4), view(5), view(6)]}


NAMES = {
    "backbone.cls_token": "encoder.student.model.cls_token",
    "backbone.blocks.0.attn.qkv.weight": "encoder.student.model.blocks.0.attn.qkv.weight",
    "backbone.relation_blocks.0.attn.qkv.weight": "objectives.local_group.aggregator.student.blocks.0.attn.qkv.weight",
    "instance_head.projector.0.weight": "objectives.instance.contrast.projector.student.0.weight",
    "local_group_head.predictor.0.weight": "objectives.local_group.contrast.predictor.0.weight",
    "group_head.last_layer.weight_v": "objectives.group.prototypes.student.weight_v",
    "student.blocks.1.mlp.fc1.weight": "encoder.student.model.blocks.1.mlp.fc1.weight",
    "teacher.relation": "objectives.local_group.aggregator.teacher.blocks.0.mlp.fc1.weight",
}


def test_three_steps_are_those_of_the_authors_code(golden: Path) -> None:
    inputs = np.load(golden / "mugs_inputs.npz")
    expected = json.loads((golden / "mugs_expected.json").read_text())
    hyper = expected["hyper"]
    method = TOY.build(golden_encoder()).train()
    import_full(golden / "mugs_official_full.pth", method)
    method.momentum = constant(hyper["ema"])
    optimization = replace(
        TOY.optimization(RunLength(images=300, batch_size=3, epochs=10, steps_per_epoch=100)),
        lr=constant(hyper["lr"]),
        weight_decay=constant(hyper["wd"]),
    )
    assert (optimization.patch_embed_lr, optimization.clip_each) == (hyper["patch_embed_lr_mult"], True)
    optimizer = build_optimizer(method, optimization)
    parameters = dict(method.named_parameters())
    for step, want in enumerate(expected["steps"]):
        tolerance = 1e-4 if step == 0 else 1e-3
        time = SECOND_EPOCH._replace(step=100 + step)
        set_schedules(optimizer, optimization, time)
        terms = method(golden_views(inputs, step), time)
        for ours, theirs in (
            ("instance/info_nce", "instance"),
            ("local_group/info_nce", "local_group"),
            ("group/cross_entropy", "group"),
            ("loss", "total"),
        ):
            assert terms[ours].item() == pytest.approx(want[theirs], rel=tolerance), (step, theirs)
        optimizer.zero_grad()
        terms["loss"].backward()
        method.after_backward(time)
        for name, norm in want["grad_norms"].items():
            gradient = parameters[NAMES[name]].grad
            assert gradient is not None and gradient.norm().item() == pytest.approx(norm, rel=tolerance), (step, name)
        trained = [parameter for parameter in parameters.values() if parameter.grad is not None]
        clip_gradients(trained, hyper["clip_per_param"], each=True)
        optimizer.step()
        method.update_teachers(time)
        state = method.state_dict()
        pointers = [int(state[f"objectives.local_group.{side}_memory.pointer"]) for side in ("student", "teacher")]
        assert pointers == want["mem_ptr"]
        for name, norm in want["params_after"].items():
            assert state[NAMES[name]].norm().item() == pytest.approx(norm, rel=1e-5), (step, name)


def test_groups_of_parameters_are_those_of_the_authors_code() -> None:
    method = Mugs(queue_size=16, memory_size=16, prototypes=16).build(Encoder(EncoderSettings(position="dino")))
    optimizer = build_optimizer(method, Mugs().optimization(RunLength(100, 10, 10, 10)))
    assert [len(group["params"]) for group in optimizer.param_groups] == [69, 1, 109, 1]
    student = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    # 60,996,608 at 65,536 prototypes of 256 numbers and a gain each
    assert student + (65536 - 16) * 257 == 60_996_608


# what a step does


def step(method: Method, views: dict[str, list[View]], time: Time = SECOND_EPOCH) -> dict[str, Tensor]:
    terms = method(views, time)
    terms["loss"].backward()
    method.after_backward(time)
    return terms


def test_every_parameter_of_the_student_is_trained_and_none_of_the_teacher() -> None:
    method = small_method()
    step(method, random_views(method.crops, 4))
    for name, parameter in method.named_parameters():
        trained = parameter.grad is not None and bool(parameter.grad.any())
        assert trained == (".teacher." not in name), name


def test_the_teacher_starts_as_a_copy_and_follows_with_encoder_heads_and_aggregator() -> None:
    method = small_method()
    state = method.state_dict()
    students = [name for name in state if ".student." in name and "memory" not in name]
    assert {name.split(".")[1] for name in students} == {"student", "instance", "local_group", "group"}
    for name in students:
        assert torch.equal(state[name], state[name.replace(".student.", ".teacher.")]), name
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if ".student." in name:
                parameter.add_(1.0)
    method.momentum = constant(0.75)
    method.update_teachers(SECOND_EPOCH)
    state = method.state_dict()
    for name in students:
        torch.testing.assert_close(state[name.replace(".student.", ".teacher.")], state[name] - 0.75, msg=name)


def test_prototypes_are_frozen_in_the_first_epoch_alone() -> None:
    method = small_method()
    for time, frozen in ((Time(99, 100, 10), True), (Time(100, 100, 10), False)):
        method.zero_grad()
        step(method, random_views(method.crops, 2), time)
        gradients = {name: p.grad for name, p in method.named_parameters() if ".prototypes.student." in name}
        assert len(gradients) == 2 and all((gradient is None) == frozen for gradient in gradients.values())


def test_the_loss_of_a_step_without_training_does_not_change_the_next() -> None:
    method = small_method().eval()
    views = random_views(method.crops, 2)
    first, second = method(views, SECOND_EPOCH), method(views, SECOND_EPOCH)
    assert torch.equal(first["loss"], second["loss"])
    assert all(int(value) == 0 for name, value in method.state_dict().items() if name.endswith("filled"))


def test_autocast_keeps_losses_queues_and_the_centre_in_float32() -> None:
    method, exact = small_method(), small_method()
    views = random_views(method.crops, 4)
    reference = exact(views, SECOND_EPOCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method(views, SECOND_EPOCH)
    assert all(value.dtype == torch.float32 for value in terms.values())
    for name, value in terms.items():
        torch.testing.assert_close(value, reference[name], rtol=0.05, atol=0.05)
    assert all(buffer.dtype in (torch.float32, torch.long) for buffer in method.buffers())
    terms["loss"].backward()


def test_gauges_are_named_by_objective() -> None:
    method = small_method()
    method(random_views(method.crops, 2), SECOND_EPOCH)
    group = ("teacher_entropy", "perplexity", "occupancy", "kl")
    assert set(method.gauges()) == {
        *(f"{term}/{gauge}" for term in ("instance", "local_group") for gauge in ("accuracy", "key_spread")),
        *(f"group/{name}" for name in group),
    }


# two processes


def one_step(images: slice | None) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients averaged over ranks, as data-parallel training does, and buffers, after two steps."""
    method = small_method()
    for seed in (1, 2):
        views = random_views(method.crops, 4, seed=seed)
        count = 4 // distributed.world_size()
        own = slice(distributed.rank() * count, (distributed.rank() + 1) * count) if images is None else images
        method.zero_grad()
        terms = step(method, part(views, own))
    losses = {name: distributed.mean(value) for name, value in terms.items()}
    gradients = {n: distributed.mean(p.grad) for n, p in method.named_parameters() if p.grad is not None}
    return losses, gradients, dict(method.named_buffers())


def test_two_processes_equal_one() -> None:
    whole = one_step(slice(None))
    for shared in run_ranks(one_step, None):
        for ours, alone in zip(shared, whole, strict=True):
            assert ours.keys() == alone.keys()
            for name, value in alone.items():
                torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)


# settings


@pytest.mark.parametrize(
    ("weights", "terms"),
    [
        ({"instance_weight": 0.0}, {"local_group", "group"}),
        ({"local_group_weight": 0.0}, {"instance", "group"}),
        ({"group_weight": 0.0}, {"instance", "local_group"}),
        ({"instance_weight": 0.0, "local_group_weight": 0.0}, {"group"}),
    ],
)
def test_a_term_of_weight_zero_is_not_built_and_the_rest_still_learns(
    weights: dict[str, float], terms: set[str]
) -> None:
    method = small_method(replace(SMALL, **weights))
    assert set(method.objectives) == terms
    loss = step(method, random_views(method.crops, 2))
    values = [value for name, value in loss.items() if name != "loss"]
    torch.testing.assert_close(loss["loss"], sum(values) / len(terms))
    assert all(p.grad is not None for name, p in method.named_parameters() if ".teacher." not in name)


def test_weights_really_weigh() -> None:
    method = small_method(replace(SMALL, instance_weight=2.0, local_group_weight=1.0, group_weight=0.5))
    terms = method(random_views(method.crops, 2), SECOND_EPOCH)
    instance, local_group = terms["instance/info_nce"], terms["local_group/info_nce"]
    torch.testing.assert_close(terms["loss"], (2 * instance + local_group + 0.5 * terms["group/cross_entropy"]) / 3.5)


def test_official_weights_only_switch_and_divide() -> None:
    settings = replace(SMALL, instance_weight=2.0, group_weight=0.0, compat="official")
    method = small_method(settings)
    terms = method(random_views(method.crops, 2), SECOND_EPOCH)
    # weights (2, 1, 0): the plain sum of two losses over 3
    torch.testing.assert_close(terms["loss"], (terms["instance/info_nce"] + terms["local_group/info_nce"]) / 3)


def test_official_memories_leave_gaps_of_one_batch() -> None:
    pointers = {}
    for compat in ("fixed", "official"):
        method = small_method(replace(SMALL, compat=compat, strong_probability=0.0))
        for seed in range(3):
            method(random_views(method.crops, 5, seed=seed), SECOND_EPOCH)
        state = method.state_dict()
        pointers[compat] = int(state["objectives.local_group.teacher_memory.pointer"])
        assert int(state["objectives.instance.contrast.queue.pointer"]) == 30
    assert pointers == {"fixed": 15, "official": 30}


def test_without_small_crops_each_loss_is_the_mean_over_the_two_large_pairs() -> None:
    torch.manual_seed(0)
    method = small_method(replace(SMALL, small_crops=0))
    assert [crops.name for crops in method.student_sees] == ["student"]
    step(method, random_views(method.crops, 3))
    seen: list[Tensor] = []
    method.objectives["instance"].contrast.register_forward_pre_hook(lambda _, given: seen.extend(given))
    terms = method.eval()(random_views(method.crops, 3), SECOND_EPOCH)
    contrast = method.objectives["instance"].contrast
    (student, teacher), queue = seen, contrast.queue.rows.clone()
    with torch.no_grad():
        predictions = contrast.predictor(F.normalize(contrast.projector.student(student), dim=-1))
        keys = contrast.projector.teacher(teacher)
    unit = (F.normalize(predictions, dim=-1), F.normalize(keys, dim=-1))
    torch.testing.assert_close(terms["instance/info_nce"], dense_info_nce(*unit, queue, 0.2, large=2))


def test_the_crops_are_those_of_the_paper() -> None:
    teacher, student, small = (request for request in Mugs()._crops())
    assert (teacher.count, teacher.size, teacher.scale, teacher.strong_probability) == (2, 224, (0.25, 1.0), 0.0)
    assert (student.count, student.size, student.scale, student.strong_probability) == (2, 224, (0.25, 1.0), 0.5)
    assert (small.count, small.size, small.scale, small.strong_probability) == (10, 96, (0.05, 0.25), 0.5)
    assert student.strong_together and not small.strong_together
    assert teacher.recipes == student.recipes == ("dino_1", "dino_2") and small.recipes == ("dino_local",)
    assert (teacher.strong_recipe, student.strong_recipe, small.strong_recipe) == (None, "mugs_strong", "mugs_strong")


def test_shared_large_crops_are_the_teachers_own() -> None:
    method = small_method(replace(SMALL, share_large_crops=True))
    assert [crops.name for crops in method.student_sees] == ["teacher", "small"]
    assert [crops.name for crops in method.crops] == ["teacher", "small"]
    step(method, random_views(method.crops, 2))


@pytest.mark.parametrize(("name", "heads"), [("resnet10t", 8), ("convnext_atto", 5)])
def test_networks_without_tokens_learn_too(name: str, heads: int) -> None:
    settings = replace(SMALL, large_size=64, small_size=32)
    torch.manual_seed(0)
    method = settings.build(small_encoder(name)).train()
    block = method.objectives["local_group"].aggregator.student.blocks[0]
    assert block.attn.num_heads == heads  # of 512 and 320 features
    step(method, random_views(method.crops, 2))
    assert all(p.grad is not None for n, p in method.named_parameters() if ".teacher." not in n and p.requires_grad)


def test_the_aggregator_has_the_heads_of_the_vit_and_the_depth_asked_for() -> None:
    method = small_method(replace(SMALL, relation_depth=2), embed_dim=48, num_heads=3)
    blocks = method.objectives["local_group"].aggregator.student.blocks
    assert [block.attn.num_heads for block in blocks] == [3, 3]


def test_batch_norm_in_heads_follows_both_hidden_layers_of_the_projectors_alone() -> None:
    method = small_method(replace(SMALL, batch_norm_in_heads=True))
    found = [name for name, module in method.named_modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(found) == 12 and not any("predictor" in name for name in found)
    step(method, random_views(method.crops, 2))


def test_fixed_prototypes_have_no_trainable_norm() -> None:
    method = small_method(replace(SMALL, fixed_prototype_norm=True))
    gains = [p for name, p in method.named_parameters() if name.endswith("weight_g")]
    assert len(gains) == 2 and not any(gain.requires_grad for gain in gains)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_size": 3}, "a memory of 3 vectors has no 4 neighbours"),
        ({"instance_weight": -1.0}, r"instance_weight is -1\.0; it must be 0 or more"),
        ({"instance_weight": 0.0, "local_group_weight": 0.0, "group_weight": 0.0}, "one must be above"),
        ({"strong_probability": 1.5}, "strong_probability is 1.5; it must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        replace(SMALL, **change).build(small_encoder())
    assert "\n" not in str(refusal.value)


def test_a_saved_method_continues_with_the_same_loss() -> None:
    method, other = small_method(), small_method(seed=1)
    for seed in (1, 2):
        method(random_views(method.crops, 3, seed=seed), SECOND_EPOCH)
    other.load_state_dict(method.state_dict())
    views = random_views(method.crops, 3, seed=3)
    assert torch.equal(method(views, SECOND_EPOCH)["loss"], other(views, SECOND_EPOCH)["loss"])


# recipes


RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "peak", "end", "decay", "temperature", "frozen", "drop_path", "clip"),
    [
        ("vits16-100ep", 512, 100, 1.6e-3, 1e-6, (0.04, 0.2), (0.04, 0), 1, 0.1, (3.0, 3.0)),
        ("vits16-300ep", 1024, 300, 3.2e-3, 1e-6, (0.04, 0.1), (0.07, 30), 1, 0.1, (3.0, 3.0)),
        ("vits16-800ep", 1024, 800, 3.2e-3, 1e-6, (0.04, 0.1), (0.07, 30), 1, 0.1, (3.0, 3.0)),
        ("vitb16-400ep", 1008, 400, 3.15e-3, 2e-6, (0.04, 0.1), (0.07, 50), 3, 0.1, (3.0, 3.0)),
        ("vitl16-250ep", 640, 250, 3.75e-3, 1.5e-4, (0.025, 0.08), (0.07, 50), 3, 0.3, (3.0, 0.3)),
    ],
)
def test_recipes_hold_the_values_of_the_official_script(
    name: str,
    batch: int,
    epochs: int,
    peak: float,
    end: float,
    decay: tuple[float, float],
    temperature: tuple[float, int],
    frozen: int,
    drop_path: float,
    clip: tuple[float, float],
) -> None:
    recipe = yaml.safe_load((RECIPES / f"mugs-{name}.yaml").read_text())
    settings = Mugs(**recipe["mugs"])
    assert (recipe["method"], recipe["batch_size"], recipe["epochs"]) == ("mugs", batch, epochs)
    assert recipe["encoder_args"] == {"drop_path_rate": drop_path} and recipe["position"] == "dino"
    optimization = settings.optimization(RunLength(1281167, batch, epochs, 10))
    assert optimization.lr(Time(99, 10, epochs)) == pytest.approx(peak)
    assert optimization.lr(Time(10 * epochs, 10, epochs)) == pytest.approx(end)
    assert optimization.weight_decay(Time(0, 10, epochs)) == pytest.approx(decay[0])
    assert optimization.weight_decay(Time(10 * epochs, 10, epochs)) == pytest.approx(decay[1])
    assert (settings.teacher_temperature, settings.teacher_temperature_epochs) == temperature
    assert settings.freeze_prototypes_epochs == frozen and settings.fixed_prototype_norm == (drop_path == 0.3)
    assert optimization.clip is not None
    assert tuple(optimization.clip(Time(10 * epoch, 10, epochs)) for epoch in (100, 101)) == clip
