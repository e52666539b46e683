"""DINO, iBOT and MST: two optimisation steps of the authors' code, and what the masks and the decoder of MST do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.methods.base import Method, Settings
from polygrain.methods.dino import DINO
from polygrain.methods.ibot import IBOT
from polygrain.methods.mae import MAE
from polygrain.methods.mst import MST
from polygrain.objectives.base import Objective
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time, constant
from polygrain.train.optimizers import build_optimizer, clip_gradients, set_schedules
from polygrain.views import View
from polygrain.weights.importing import fill_method
from tests.methods.views import random_views
from tests.references.make_dino import HYPER, TEMPERATURES, crops, masks, wave, weight

SECOND_EPOCH = Time(100, 100, 10)
LENGTH = RunLength(images=300, batch_size=3, epochs=10, steps_per_epoch=100)
SIZES: dict[str, Any] = {"large_size": 32, "small_size": 16, "small_crops": 2, "hidden": 20, "prototype_dim": 16}
HEAD: dict[str, Any] = {
    **SIZES,
    "prototypes": 24,
    "fixed_prototype_norm": False,
    "teacher_temperature_start": TEMPERATURES["start"],
    "teacher_temperature_epochs": TEMPERATURES["epochs"],
    "teacher_temperature": TEMPERATURES["end"],
    "clip": HYPER["clip"],
}
METHODS: dict[str, Settings] = {
    "dino": DINO(**HEAD),
    "ibot": IBOT(**HEAD),
    "mst": MST(**HEAD),
    "mae": MAE(large_size=32, decoder_width=16, decoder_depth=1, decoder_heads=2),
}
NUMBERS = json.loads((Path(__file__).parents[1] / "references" / "dino.json").read_text())


def vit(**arguments: Any) -> Encoder:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=size))


def built(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return METHODS[name].build(vit()).train()


def checkpoint(name: str) -> dict[str, Tensor]:
    """What the authors' script starts from, as a file of theirs holds it."""
    sides: dict[str, list[str]] = {"student": [], "teacher": []}
    for key in NUMBERS[name]["shapes"]:
        sides[key.split("/")[0]].append(key)
    tensors = {
        key: weight(50 * side + place, tuple(NUMBERS[name]["shapes"][key]))
        for side, keys in enumerate(sides.values())
        for place, key in enumerate(keys)
    }
    tensors |= {key: tensors[key.replace("last_layer2", "last_layer")] for key in tensors if "last_layer2" in key}
    tensors[f"{name}_loss/center"] = wave(1, 24, pace=0.77)
    if name == "ibot":
        tensors["ibot_loss/center2"] = wave(1, 1, 24, pace=0.79)
    return tensors


def views(name: str, step: int) -> dict[str, list[View]]:
    none = torch.zeros(3, dtype=torch.bool)
    made = [View(pixels, torch.ones(3, 4), none, none, torch.arange(3)) for pixels in crops(step)]
    if name == "ibot":
        hidden = [mask.flatten(1) for mask in masks(step)]
        made[:2] = [view._replace(hidden=mask) for view, mask in zip(made, hidden, strict=False)]
    return {"large": made[:2], "small": made[2:]}


def named(parameter: str, side: str) -> str:
    """Our name of a parameter of the authors'."""
    if parameter == "backbone.masked_embed":
        return "encoder.student.mask_token"
    for theirs, ours in (
        ("backbone.", f"encoder.{side}.model."),
        ("head.mlp.", f"objectives.group.projector.{side}."),
        ("head.last_layer.", f"objectives.group.prototypes.{side}."),
    ):
        if parameter.startswith(theirs):
            return ours + parameter.removeprefix(theirs)
    raise AssertionError(parameter)


@pytest.mark.parametrize("name", ["dino", "ibot"])
def test_two_steps_are_those_of_the_authors_code(name: str) -> None:
    method = built(name)
    assert fill_method(checkpoint(name), name, method).complete
    method.momentum = constant(HYPER["momentum"])
    optimization = replace(
        METHODS[name].optimization(LENGTH), lr=constant(HYPER["lr"]), weight_decay=constant(HYPER["weight_decay"])
    )
    assert optimization.clip is not None and optimization.clip_each
    optimizer = build_optimizer(method, optimization)
    parameters = dict(method.named_parameters())
    terms_of = {"cls": "group/cross_entropy", "patch": "patches/cross_entropy", "loss": "loss"}
    for step, want in enumerate(NUMBERS[name]["steps"]):
        time = SECOND_EPOCH._replace(step=100 + step)
        set_schedules(optimizer, optimization, time)
        terms = method(views(name, step), time)
        for theirs, value in want["losses"].items():
            assert terms[terms_of[theirs]].item() == pytest.approx(value, rel=1e-4), (step, theirs)
        optimizer.zero_grad()
        terms["loss"].backward()
        method.after_backward(time)
        for theirs, norm in want["gradients"].items():
            gradient = parameters[named(theirs, "student")].grad
            assert gradient is not None and gradient.norm().item() == pytest.approx(norm, rel=1e-3), (step, theirs)
        clip_gradients(parameters.values(), optimization.clip(time), each=True)
        optimizer.step()
        method.update_teachers(time)
        for side in ("student", "teacher"):
            for theirs, total in want[side].items():
                ours = parameters[named(theirs, side)].double().sum().item()
                assert ours == pytest.approx(total, abs=2e-3), (step, side, theirs)
        state = method.state_dict()
        centres = [state[f"objectives.{term}.centre"] for term in ("group", "patches")[: len(want["centres"])]]
        for ours, theirs in zip(centres, want["centres"], strict=True):
            torch.testing.assert_close(ours[:6], torch.tensor(theirs), rtol=1e-4, atol=1e-5)


def test_an_ibot_whose_patches_have_prototypes_of_their_own_is_refused() -> None:
    tensors = checkpoint("ibot")
    tensors["student/head.last_layer2.weight_v"] = tensors["student/head.last_layer2.weight_v"] + 1
    with pytest.raises(ValueError, match="shared_head"):
        fill_method(tensors, "file", built("ibot"))


# what is hidden from whom


def step(method: Method, given: dict[str, list[View]]) -> dict[str, Tensor]:
    terms = method(given, SECOND_EPOCH)
    terms["loss"].backward()
    method.after_backward(SECOND_EPOCH)
    return terms


def without_masks(given: dict[str, list[View]]) -> dict[str, list[View]]:
    return {
        name: [v if v.hidden is None else v._replace(hidden=torch.zeros_like(v.hidden)) for v in several]
        for name, several in given.items()
    }


def test_the_mask_token_belongs_to_the_student_alone() -> None:
    method = built("ibot")
    token = method.student.mask_token
    assert token is not None and not token.any() and method.backbone.mask_token is None
    step(method, random_views(method.crops, 4))
    assert token.grad is not None and token.grad.any()
    before = [p.clone() for p in method.backbone.parameters()]
    with torch.no_grad():
        token.add_(1.0)
    method.update_teachers(SECOND_EPOCH)
    assert all(torch.equal(a, b) for a, b in zip(before, method.backbone.parameters(), strict=True))


def test_the_teacher_sees_what_is_hidden_from_the_student() -> None:
    method = built("ibot").eval()
    given = random_views(method.crops, 4)
    seen = {}
    for name, hidden in (("masked", given), ("whole", without_masks(given))):
        method(hidden, SECOND_EPOCH)
        seen[name] = method.seen[0]
    assert torch.equal(seen["masked"].patches, seen["whole"].patches) and seen["masked"].hidden is None


def test_nothing_hidden_gives_no_loss_of_patches_and_gradients_of_zero() -> None:
    method = built("ibot")
    terms = step(method, without_masks(random_views(method.crops, 4)))
    assert terms["patches/cross_entropy"] == 0
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    token = method.student.mask_token
    assert token is not None and token.grad is not None and not token.grad.any()


def test_teacher_patches_that_are_shown_move_the_centre_and_not_the_loss() -> None:
    method = built("ibot").eval()
    patches = method.objectives["patches"]
    given: list[Any] = []
    hook = patches.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
    method(random_views(method.crops, 3), SECOND_EPOCH)
    hook.remove()
    student, teacher, _ = given
    moved = [
        t._replace(patches=torch.where(s.hidden[..., None], t.patches, torch.randn_like(t.patches)))
        for s, t in zip(student, teacher, strict=False)
    ]
    objective = patches.train()
    centres, losses = [], []
    for theirs in (teacher, moved):
        objective.centre.zero_()
        losses.append(objective(student, theirs, SECOND_EPOCH)["cross_entropy"])
        centres.append(objective.centre.clone())
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(centres[0], centres[1])


def test_ibot_without_its_group_term_still_trains_and_averages_the_head() -> None:
    method = built("ibot")
    method.remove("group")
    step(method, random_views(method.crops, 4))
    for name, parameter in method.named_parameters():
        trained = parameter.grad is not None and bool(parameter.grad.any())
        assert trained == (".teacher." not in name), name
    assert any(name.startswith("objectives.patches.projector.student") for name, _ in method.named_parameters())


@pytest.mark.parametrize("name", ["ibot", "mst", "mae"])
def test_only_vits_can_be_masked(name: str) -> None:
    with pytest.raises(ValueError, match="masking needs a ViT"):
        METHODS[name].build(Encoder(EncoderSettings(name="resnet10t")))


def test_dino_trains_a_resnet_with_batch_norm_in_its_head() -> None:
    method = DINO(**{**HEAD, "batch_norm_in_heads": True}).build(Encoder(EncoderSettings(name="resnet10t"))).train()
    step(method, random_views(method.crops, 2))
    assert all(p.grad is not None for name, p in method.named_parameters() if ".teacher." not in name)


# MST


def test_mst_hides_none_of_the_patches_that_the_teacher_attends_to() -> None:
    method = built("mst")
    given = random_views(method.crops, 6)
    arguments: list[Any] = []
    method.objectives["restoration"].register_forward_pre_hook(lambda _, given: arguments.extend(given))
    method(given, SECOND_EPOCH)
    for i, teacher in enumerate(method.seen):
        hidden = arguments[0][i].hidden
        assert hidden.any() and (hidden & ~given["large"][i].hidden).sum() == 0
        for image, attention in zip(hidden, teacher.attention, strict=True):
            least = attention.sort().values[3]  # a quarter of sixteen patches are candidates
            assert (attention[image] <= least).all()


def test_mst_without_masks_and_without_restoration_is_dino() -> None:
    settings = MST(**{**HEAD, "mask_probability": 0.0, "restoration_weight": 0.0})
    torch.manual_seed(0)
    method = settings.build(vit()).train()
    dino = built("dino")
    dino.load_state_dict({k: v for k, v in method.state_dict().items() if k != "encoder.student.mask_token"})
    given = random_views(method.crops, 3)
    assert torch.equal(method(given, SECOND_EPOCH)["loss"], dino(given, SECOND_EPOCH)["loss"])


def test_mst_restores_the_whole_large_crops() -> None:
    method = built("mst").eval()
    given = random_views(method.crops, 3)
    found: list[Tensor] = []
    method.objectives["restoration"].decoder.register_forward_hook(lambda *args: found.append(args[2]))
    term = method(given, SECOND_EPOCH)["restoration/mean_difference"]
    wanted = []
    for view, predictions in zip(given["large"], found[0].chunk(2), strict=True):
        for image in range(3):
            for patch in range(16):
                row, column = divmod(patch, 4)
                pixels = view.pixels[image, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                drawn = predictions[image, patch].view(8, 8, 3).permute(2, 0, 1)
                wanted.append((drawn - pixels).abs().mean())
    torch.testing.assert_close(term, torch.stack(wanted).mean())


def test_every_reading_that_can_die_is_read() -> None:
    for name in METHODS:
        method = built(name)
        terms = method(random_views(method.crops, 4), SECOND_EPOCH)
        assert set(method.dead_values()) <= {*terms, *method.gauges()}
        assert all(isinstance(objective, Objective) for objective in method.objectives.values())
