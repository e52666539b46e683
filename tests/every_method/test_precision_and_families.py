"""Every method under mixed precision and on every family of encoders."""

import pytest
import torch

from polygrain.methods import METHODS
from tests.every_method.tiny import BATCH, ENCODERS, begin, build, family_of, step


@pytest.mark.parametrize("name", METHODS)
def test_losses_stay_in_full_precision_under_bf16_autocast(name: str) -> None:
    method = build(name, family_of(name))
    begin(method, BATCH)
    exact = step(method)["loss"].item()
    method = build(name, family_of(name))
    begin(method, BATCH)
    terms = step(method, bf16=True)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())
    assert terms["loss"].item() == pytest.approx(exact, rel=0.1, abs=0.05)
    assert all(buffer.dtype != torch.bfloat16 for buffer in method.buffers())


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("name", METHODS)
def test_it_trains_each_family_of_encoders_or_says_why_not(name: str, family: str) -> None:
    if family == family_of(name):
        return  # trained in test_training
    try:
        method = build(name, family)
    except ValueError as refusal:
        assert "ViT" in str(refusal) or "ResNet" in str(refusal)  # which family it needs
        return
    begin(method, BATCH)
    assert step(method)["loss"].isfinite()
    moved = [p.grad is not None and bool(p.grad.any()) for p in method.student.parameters() if p.requires_grad]
    assert sum(moved) > 0.9 * len(moved)
