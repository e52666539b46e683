import dataclasses
import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models import _registry
from torch import Tensor

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.methods.vicregl import VICRegL
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.backbone import load_encoder, open_backbone, save_backbone
from polygrain.weights.exporting import export
from polygrain.weights.starting import start_from
from tests.weights import official

SMALL = [
    EncoderSettings(name="vit_mini_64", arguments={"depth": 1, "drop_path_rate": 0.1}),
    EncoderSettings(name="vit_mini_64", position="dino", arguments={"depth": 1}, checkpointing=True),
    EncoderSettings(name="resnet18_64"),
    EncoderSettings(name="convnext_femto_64"),
    EncoderSettings(name="convnext_atto", arguments={"depths": (1, 1, 1, 1)}),
    EncoderSettings(name="vit_mini_64", arguments={"depth": 1}, channels=5),
    EncoderSettings(name="resnet18_64", channels=1),
]


def trained(settings: EncoderSettings) -> Encoder:
    """An encoder of which no tensor is as it starts."""
    torch.manual_seed(0)
    encoder = Encoder(settings).eval()
    with torch.no_grad():
        for value in encoder.state_dict().values():
            if value.is_floating_point():
                value.copy_(value + 0.05 * torch.rand_like(value))
    return encoder


def pixels(size: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", SMALL)
def test_a_saved_backbone_is_built_again_with_the_same_outputs(tmp_path, settings):
    encoder = trained(settings)
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    extra = {"method": "mugs", "step": 7, "crop_size": 48}
    save_backbone(tmp_path / "run" / "backbone.safetensors", encoder, normalisation=normalisation, extra=extra)
    again = open_backbone(tmp_path / "run")
    assert again.normalisation == normalisation
    assert again.crop_size == 48
    assert again.training == {"method": "mugs", "step": 7}
    for size in (64, 96):
        seen = pixels(size, settings.channels)
        ours, theirs = encoder.features(seen), again.encoder.features(seen)
        assert ours.grid == theirs.grid
        for one, other in zip(ours[:3], theirs[:3], strict=True):
            assert torch.equal(one, other)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["backbone.safetensors"]


@pytest.mark.parametrize("settings", SMALL)
@pytest.mark.parametrize("to", ["timm", "torch"])
def test_the_printed_lines_load_an_export_in_timm_with_the_same_outputs(tmp_path, settings, to):
    encoder = trained(settings)
    save_backbone(tmp_path / "backbone.safetensors", encoder, normalisation=IMAGENET)
    exported = export(tmp_path, to, tmp_path / f"out{'.pth' if to == 'torch' else '.safetensors'}")
    assert exported.difference <= 1e-5
    assert "import timm" in exported.code and "polygrain" not in exported.code
    names: dict = {}
    exec(exported.code, names)
    model = names["model"].eval()
    shown = pixels(channels=settings.channels)
    seen = encoder.features(shown)
    torch.testing.assert_close(model(shown), seen.pooled, atol=1e-5, rtol=0)
    features = model.forward_features(shown)
    if encoder.family == "vit":
        torch.testing.assert_close(features[:, 1:], seen.patches, atol=1e-5, rtol=0)
    elif encoder.settings.name != "convnext_atto":  # which norms after pooling
        torch.testing.assert_close(features.flatten(2).mT, seen.patches, atol=1e-5, rtol=0)


def test_an_export_to_safetensors_is_a_backbone_of_ours(tmp_path):
    encoder = trained(SMALL[3])
    save_backbone(tmp_path / "backbone.safetensors", encoder, normalisation=IMAGENET, extra={"method": "vicregl"})
    exported = export(tmp_path, "safetensors", tmp_path / "out.safetensors")
    names: dict = {}
    exec(exported.code, names)
    assert torch.equal(names["model"].eval()(pixels()), encoder.model(pixels()))
    assert open_backbone(tmp_path / "out.safetensors").training == {"method": "vicregl"}


def test_an_export_that_gives_other_outputs_is_an_error(tmp_path, monkeypatch):
    save_backbone(tmp_path / "backbone.safetensors", trained(SMALL[2]), normalisation=IMAGENET)
    monkeypatch.setattr(timm.models, "load_checkpoint", lambda model, path: None)
    with pytest.raises(ValueError, match="gives other outputs"):
        export(tmp_path, "timm", tmp_path / "out.safetensors")


def test_impossible_exports_say_why(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", trained(SMALL[0]), normalisation=IMAGENET)
    with pytest.raises(ValueError, match="cannot export to 'onnx'; choose from timm, torch, safetensors"):
        export(tmp_path, "onnx", tmp_path / "out.onnx")
    with pytest.raises(ValueError, match=r"a file for torch ends in \.pth"):
        export(tmp_path, "torch", tmp_path / "out.safetensors")
    odd = EncoderSettings(name="vit_mini_64", arguments={"depth": 1, "norm_layer": None})
    save_backbone(tmp_path / "odd.safetensors", Encoder(odd), normalisation=IMAGENET)
    with pytest.raises(ValueError, match="cannot pass None, the value of norm_layer"):
        export(tmp_path / "odd.safetensors", "timm", tmp_path / "out.safetensors")


def rewritten(path, change) -> None:
    """The same file after `change(tensors)`."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path, metadata)


def test_a_damaged_backbone_is_never_loaded_by_half(tmp_path):
    file = tmp_path / "backbone.safetensors"
    save_backbone(file, trained(SMALL[0]), normalisation=IMAGENET)
    rewritten(file, lambda tensors: tensors.pop("norm.weight"))
    with pytest.raises(ValueError, match=r"does not fit its encoder: norm\.weight is missing"):
        load_encoder(file)
    rewritten(file, lambda tensors: tensors.update({"norm.weight": torch.zeros(3), "new": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"new is not known, norm\.weight is \(3,\), not \(192,\)"):
        load_encoder(file)


def test_what_is_no_backbone_is_named(tmp_path):
    with pytest.raises(ValueError, match="neither a run folder nor a file"):
        load_encoder(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no backbone\.safetensors"):
        load_encoder(tmp_path)
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(ValueError, match="is not a sound safetensors file"):
        load_encoder(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was not written by polygrain"):
        load_encoder(tmp_path / "other.safetensors")
    (tmp_path / "step-00000001.pt").touch()
    with pytest.raises(ValueError, match="is the state of a whole run; give the run's folder"):
        load_encoder(tmp_path / "step-00000001.pt")
    with pytest.raises(ValueError, match="nearest names: resnet18"):
        load_encoder("random:resnet188")


def test_the_description_in_a_file_is_plain_json(tmp_path):
    save_backbone(tmp_path / "b.safetensors", trained(SMALL[3]), normalisation=IMAGENET, extra={"method": "vicregl"})
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        described = json.loads(file.metadata()["polygrain"])
    assert described["encoder"]["name"] == "convnext_femto_64"
    assert described["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert described["crop_size"] == 64
    assert described["training"] == {"method": "vicregl"}


def test_an_official_file_is_opened_as_the_released_network_it_is_of(tmp_path):
    state = official.random_vit()
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "mugs.pth")
    encoder = load_encoder(tmp_path / "mugs.pth")
    with torch.no_grad():
        expected = official.vit_tokens(state, pixels(96), heads=6)[:, 0]
        torch.testing.assert_close(encoder.features(pixels(96)).pooled, expected, atol=1e-5, rtol=0)
    torch.save(official.random_convnext(), tmp_path / "vicregl.pth")
    assert load_encoder(tmp_path / "vicregl.pth").settings.name == "convnext_small_vicregl"
    torch.save(official.random_vit(dim=48, depth=2), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="a vit of width 48, the released ones have 384, 768, 1024"):
        load_encoder(tmp_path / "other.pth")


@pytest.fixture
def pretrained_vit(tmp_path, monkeypatch):
    """Makes timm find weights for its ViT-Ti in a local file, without a network; returns the model they are of."""
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = timm.models.get_pretrained_cfg("vit_tiny_patch16_224")
    local = dataclasses.replace(
        config, file=str(tmp_path / "weights.pth"), url="", hf_hub_id=None, custom_load=False, mean=(0.5, 0.5, 0.5)
    )
    for key in ("vit_tiny_patch16_224", f"vit_tiny_patch16_224.{config.tag}"):
        monkeypatch.setitem(_registry._model_pretrained_cfgs, key, local)
    return model.eval()


def test_timms_weights_come_with_their_own_normalisation(pretrained_vit):
    backbone = open_backbone("timm:vit_tiny_patch16_224")
    assert torch.equal(backbone.encoder.features(pixels(224)).pooled, pretrained_vit(pixels(224)))
    assert backbone.normalisation.mean == (0.5, 0.5, 0.5)
    assert backbone.crop_size == 224
    assert open_backbone("random:vit_tiny_patch16_224").normalisation == IMAGENET


def test_a_small_encoder_starts_from_timms_weights_brought_to_its_patch_size(pretrained_vit):
    method = VICRegL(expander_width=8, local_width=8).build(Encoder(EncoderSettings(name="vit_tiny_64")))
    assert start_from("timm:vit_tiny_patch16_224", method).complete
    model = method.student.model
    assert torch.equal(model.blocks[7].mlp.fc1.weight, pretrained_vit.blocks[7].mlp.fc1.weight)
    assert model.patch_embed.proj.weight.shape[-1] == 8
    correlation = torch.nn.functional.cosine_similarity(
        model.patch_embed.proj.weight.mean((2, 3)).flatten(),
        pretrained_vit.patch_embed.proj.weight.mean((2, 3)).flatten(),
        dim=0,
    )
    assert correlation > 0.9
