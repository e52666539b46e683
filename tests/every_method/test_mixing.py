"""Objectives added to every method."""

import pytest
import torch

from polygrain.methods import METHODS
from polygrain.methods.adding import LocalSettings, mix
from polygrain.methods.adding_mugs import GroupSettings
from polygrain.parts.teacher import StudentTeacher
from tests.every_method.tiny import BATCH, begin, build, family_of, step

LOCAL = LocalSettings(weight=0.25, width=16)
GROUP = GroupSettings(weight=0.5, hidden=16, prototype_dim=8, prototypes=16)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("term", "addition", "weight"), [("local", LOCAL, 0.25), ("group", GROUP, 0.5)])
def test_it_is_added_wherever_there_are_two_views_and_none_of_its_name(
    name: str, term: str, addition: LocalSettings | GroupSettings, weight: float
) -> None:
    method = build(name, family_of(name))
    taken = term in method.objectives
    if method.large_views < 2 or taken:
        with pytest.raises(ValueError, match="already has" if taken else f"cannot add '{term}'"):
            mix(method, [addition])
        return
    own = dict(method.weights)
    mix(method, [addition])
    begin(method, BATCH)
    terms = step(method)
    assert method.weights == {**own, term: weight}
    parts = [method.weights[key.split("/")[0]] * value for key, value in terms.items() if "/" in key]
    torch.testing.assert_close(terms["loss"], torch.stack(parts).sum())
    trainable = [p for p in method.objectives[term].parameters() if p.requires_grad]
    assert trainable and all(p.grad is not None for p in trainable)
    if term == "group":
        assert isinstance(method.encoder, StudentTeacher)
        assert all(p.grad is None for p in method.encoder.teacher.parameters())
