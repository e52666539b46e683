"""Which of two networks is evaluated and exported: the one that the method's authors take."""

import pytest

from polygrain.methods import METHODS
from polygrain.parts.teacher import StudentTeacher
from tests.every_method.tiny import build, family_of

# as their evaluation code has it: docs/decisions/exported-network.md
TEACHER = {"dino", "ibot", "mst", "mugs"}
STUDENT = {"byol", "infomin", "mocov2", "mocov3", "pcl"}


@pytest.mark.parametrize("name", METHODS)
def test_the_network_that_the_authors_evaluate_is_exported(name: str) -> None:
    method = build(name, family_of(name))
    assert isinstance(method.encoder, StudentTeacher) == (name in TEACHER | STUDENT)
    if isinstance(method.encoder, StudentTeacher):
        assert method.backbone is (method.encoder.teacher if name in TEACHER else method.encoder.student)
    else:
        assert method.backbone is method.encoder
