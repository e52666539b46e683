import argparse
import os
from functools import cache

import pytest
import torch
from torch import Tensor

from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.account import IncompleteImport
from polygrain.weights.importing import import_weights
from tests.weights import official

TINY = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}


def noise(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))


def encoder(name: str, position: str = "timm", **arguments) -> Encoder:
    return Encoder(EncoderSettings(name=name, position=position, arguments=arguments)).eval()


def tiny() -> Encoder:
    return encoder("vit_tiny_patch16_224", position="dino", **TINY)


@cache
def tiny_state() -> official.State:
    return official.random_vit(dim=48, depth=2, grid=4)


def saved(path, content) -> str:
    torch.save(content, path / "file.pth")
    return str(path / "file.pth")


def check_tokens(vit: Encoder, state: official.State, size: int, heads: int) -> None:
    with torch.no_grad():
        seen = vit.features(noise(size))
        tokens = official.vit_tokens(state, noise(size), heads)
    torch.testing.assert_close(seen.pooled, tokens[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.patches, tokens[:, 1:], atol=1e-5, rtol=0)


def check_map(cnn: Encoder, expected: Tensor, size: int) -> None:
    """`expected`: (B, D, rows, columns)."""
    with torch.no_grad():
        seen = cnn.features(noise(size))
    torch.testing.assert_close(seen.patches, expected.flatten(2).mT, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen.pooled, expected.mean((2, 3)), atol=1e-5, rtol=1e-5)


def test_an_official_vit_small_computes_the_same_here_at_224_and_96_pixels(tmp_path):
    state = official.random_vit()
    vit = encoder("vit_small_patch16_224", position="dino")
    report = import_weights(saved(tmp_path, state), vit)
    assert report.count("matched") == 150 and report.count("left") == 12 and report.complete
    for size in (224, 96):
        check_tokens(vit, state, size, heads=6)


def test_an_official_resnet50_computes_the_same_here_at_224_and_96_pixels(tmp_path):
    state = official.random_resnet()
    resnet = encoder("resnet50")
    report = import_weights(saved(tmp_path, state), resnet, kind="vicreg")
    assert report.count("matched") == 318 and report.complete
    for size in (224, 96):
        with torch.no_grad():
            check_map(resnet, official.resnet_map(state, noise(size)), size)


def test_an_official_convnext_small_computes_the_same_here_at_224_and_96_pixels(tmp_path):
    state = official.random_convnext()
    convnext = encoder("convnext_small_vicregl")
    report = import_weights(saved(tmp_path, state), convnext, kind="vicregl")
    assert report.count("converted") == 306 and report.complete
    for size in (224, 96):
        with torch.no_grad():
            check_map(convnext, official.convnext_map(state, noise(size)).permute(0, 3, 1, 2), size)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "encoder."])
@pytest.mark.parametrize("nest", ["", "teacher", "state_dict"])
def test_a_backbone_is_found_under_every_prefix_and_nesting(tmp_path, prefix, nest):
    state = {prefix + key: value for key, value in tiny_state().items()}
    vit = tiny()
    report = import_weights(saved(tmp_path, {nest: state} if nest else state), vit)
    assert report.complete
    check_tokens(vit, tiny_state(), 64, heads=3)


def full_mugs() -> dict:
    """Student and teacher with heads and the rest of a full checkpoint, arguments as a Namespace."""
    student = {f"module.backbone.{key}": value + 1 for key, value in tiny_state().items()}
    teacher = {f"backbone.{key}": value for key, value in tiny_state().items()}
    head = {"instance_head.projector.0.weight": torch.zeros(4, 48)}
    return {
        "student": {**student, **{f"module.{key}": value for key, value in head.items()}},
        "teacher": {**teacher, **head},
        "student_mem": {"block.queue_q": torch.zeros(5, 48)},
        "group-sup.": {"center": torch.zeros(1, 9)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", lr=0.1),
    }


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_one_network_of_a_full_checkpoint_is_taken_and_everything_else_is_left_for_a_reason(tmp_path, which):
    vit = tiny()
    report = import_weights(saved(tmp_path, full_mugs()), vit, which=which)
    assert report.complete
    assert report.count("matched") + report.count("converted") == 4 + 2 * 12 + 2
    assert report.count("left") == 12 + (4 + 2 * 12 + 2 + 12) + 2 + 1 + 1 + 1
    expected = tiny_state()["blocks.1.mlp.fc2.bias"] + (which == "student")
    torch.testing.assert_close(vit.model.blocks[1].mlp.fc2.bias.data, expected)


def test_the_report_prints_one_line_for_tensors_that_differ_only_in_numbers(tmp_path):
    text = str(import_weights(saved(tmp_path, tiny_state()), tiny()))
    assert "30 matched, 0 converted, 12 left, 0 anew, 0 missing, 0 unknown, 0 misfit" in text
    assert "matched      2  blocks.*.attn.qkv.weight -> blocks.*.attn.qkv.weight  (144, 48)" in text


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_errors_that_load_nothing(tmp_path):
    whole = tiny_state()
    vit = tiny()
    before = vit.model.norm.weight.clone()
    holes = {key: value for key, value in whole.items() if key != "blocks.0.norm1.bias"}
    with pytest.raises(IncompleteImport, match=r"1 missing, 0 unknown, 0 misfit; nothing was loaded") as caught:
        import_weights(saved(tmp_path, holes), vit)
    assert [row.target for row in caught.value.report.rows if row.fate == "missing"] == ["blocks.0.norm1.bias"]
    with pytest.raises(IncompleteImport, match=r"0 missing, 1 unknown"):
        import_weights(saved(tmp_path, {**whole, "blocks.0.surprise": torch.zeros(1)}), vit)
    with pytest.raises(IncompleteImport, match=r"1 misfit"):
        import_weights(saved(tmp_path, {**whole, "norm.weight": torch.zeros(47)}), vit, allow_missing=True)
    deeper = official.random_vit(dim=48, depth=3, grid=4)
    with pytest.raises(IncompleteImport, match=r"0 missing, 12 unknown"):
        import_weights(saved(tmp_path, deeper), vit)
    assert torch.equal(vit.model.norm.weight, before)
    report = import_weights(saved(tmp_path, holes), vit, allow_missing=True)
    assert report.count("missing") == 1
    assert torch.equal(vit.model.norm.weight, whole["norm.weight"])


def test_the_wrong_number_of_heads_fits_every_shape_and_is_refused(tmp_path):
    state = official.random_vit(depth=1)
    with torch.no_grad():
        six, twelve = (official.vit_tokens(state, noise(32), heads) for heads in (6, 12))
    assert (six - twelve).abs().max() > 0.1
    wrong = encoder("vit_small_patch16_224", depth=1, num_heads=12)
    with pytest.raises(ValueError, match="has 12 heads; the ViT of width 384 of Mugs, DINO, iBOT and MAE has 6"):
        import_weights(saved(tmp_path, state), wrong)
    right = encoder("vit_small_patch16_224", position="dino", depth=1)
    import_weights(saved(tmp_path, state), right)
    check_tokens(right, state, 32, heads=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ls_init_value": None}, "norms after the mean, VICRegL before it; pass head_norm_first=True"),
        ({"head_norm_first": True}, "has no layer scale, unlike convnext_small; pass ls_init_value=None"),
    ],
)
def test_a_convnext_that_computes_otherwise_than_vicregls_is_refused(tmp_path, arguments, message):
    file = saved(tmp_path, {"downsample_layers.0.0.weight": torch.zeros(96, 3, 4, 4)})
    with torch.device("meta"):
        network = encoder("convnext_small", **arguments)
    with pytest.raises(ValueError, match=message):
        import_weights(file, network)


def test_files_of_another_network_or_project_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds a vit, but resnet10t is a resnet"):
        import_weights(saved(tmp_path, tiny_state()), encoder("resnet10t"))
    with pytest.raises(ValueError, match=r"no backbone as the authors save it: no patch_embed\.proj\.weight, but a"):
        import_weights(saved(tmp_path, {"a": torch.zeros(1)}), tiny(), kind="mugs")
    with pytest.raises(ValueError, match="there is no file"):
        import_weights(tmp_path / "absent.pth", tiny())
    with pytest.raises(ValueError, match="holds no teacher; it has the student"):
        import_weights(saved(tmp_path, student_alone()), tiny(), which="teacher")


def student_alone() -> dict:
    return {"student": {"backbone." + key: value for key, value in tiny_state().items()}}


def test_a_file_with_one_network_says_which_it_was(tmp_path):
    report = import_weights(saved(tmp_path, student_alone()), tiny())
    assert report.complete and "taken from the tensors that begin with 'student/backbone.'" in str(report)
    teacher = {"teacher": {"backbone." + key: value for key, value in tiny_state().items()}}
    assert "'teacher/backbone.'" in str(import_weights(saved(tmp_path, teacher), tiny()))


def test_a_vit_of_another_patch_or_width_is_refused_with_both_named(tmp_path):
    file = saved(tmp_path, tiny_state())
    for changed, ours in (({"patch_size": 8}, "width 48, patch 8, 64 pos"), ({"embed_dim": 96}, "width 96, patch 16")):
        with pytest.raises(ValueError, match="holds a ViT of width 48, patch 16, 16 positions") as caught:
            import_weights(file, encoder("vit_tiny_patch16_224", **{**TINY, **changed}))
        assert ours in str(caught.value) and "--position dino" in str(caught.value)


def exclude_bias_and_norm(parameter):
    raise AssertionError("code of a checkpoint was run")


def test_a_lars_checkpoint_is_read_without_running_the_function_it_refers_to(tmp_path):
    exclude_bias_and_norm.__module__ = "__main__"  # as the authors' training script pickles it
    import __main__

    __main__.exclude_bias_and_norm = exclude_bias_and_norm
    state = {f"module.backbone.{key}": value for key, value in official.random_resnet().items()}
    full = {
        "epoch": 100,
        "model": {**state, "module.projector.0.weight": torch.zeros(3, 2048), "module.classifier.bias": torch.zeros(9)},
        "optimizer": {
            "state": {0: {"mu": torch.zeros(2)}},
            "param_groups": [{"weight_decay_filter": exclude_bias_and_norm}],
        },
    }
    file = saved(tmp_path, full)
    del __main__.exclude_bias_and_norm
    resnet = encoder("resnet50")
    report = import_weights(file, resnet)
    assert report.complete and report.count("left") == 3
    assert torch.equal(resnet.model.conv1.weight, state["module.backbone.conv1.weight"])


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"refused: opening it would reach for 'posix\.system'"):
        import_weights(saved(tmp_path, {**tiny_state(), "hook": Hostile()}), tiny())


def test_an_encoder_with_timms_position_codes_is_told_that_mugs_had_others(tmp_path):
    file = saved(tmp_path, tiny_state())
    assert not any("position" in note for note in import_weights(file, tiny()).notes)
    notes = import_weights(file, encoder("vit_tiny_patch16_224", **TINY)).notes
    assert 'position="dino"' in notes[0]


@pytest.mark.parametrize("channels", [1, 6])
def test_an_official_file_fills_an_encoder_of_other_channels_which_gives_the_same_for_equal_ones(tmp_path, channels):
    settings = EncoderSettings(name="vit_tiny_patch16_224", position="dino", arguments=TINY, channels=channels)
    vit = Encoder(settings).eval()
    report = import_weights(saved(tmp_path, tiny_state()), vit)
    assert any(f"adapted to {channels} channels" in note for note in report.notes)
    gray = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = vit.features(gray.expand(-1, channels, -1, -1)).pooled
        theirs = official.vit_tokens(tiny_state(), gray.expand(-1, 3, -1, -1), 3)[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
