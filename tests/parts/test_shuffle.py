from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from polygrain.parts.batch_norm import SyncedBatchNorm, synchronise_batch_norm
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.shuffle import shuffle_between_ranks
from polygrain.parts.teacher import StudentTeacher
from polygrain.views import Crops
from tests.methods.views import part, random_views
from tests.ranks import run_ranks

CROPS = Crops(name="v", count=1, size=32, scale=(0.4, 1.0), recipes=("moco2",))


def pair() -> StudentTeacher[Encoder]:
    torch.manual_seed(0)
    made = StudentTeacher(Encoder(EncoderSettings(name="resnet18_64", arguments={"channels": (8, 8, 8, 16)})))
    shuffle_between_ranks(made)
    return made


def encoded() -> Any:
    """What each rank makes of its four of eight images, in evaluation and in training, and its first statistics."""
    networks = nn.ModuleList([pair()])
    synchronise_batch_norm(networks)
    assert not any(isinstance(module, SyncedBatchNorm) for module in networks.modules())
    views = random_views((CROPS,), 8)
    mine = part(views, slice(dist.get_rank() * 4, dist.get_rank() * 4 + 4))["v"][0]
    teacher = networks[0].teacher
    torch.manual_seed(dist.get_rank())  # ranks draw different numbers; the order is that of the first
    alone = teacher.eval()(mine)
    trained = teacher.train()(mine)
    return alone.pooled, alone.view.image, trained.pooled, teacher.model.bn1.running_mean


def test_every_image_comes_back_and_each_rank_norms_a_random_share() -> None:
    with pytest.warns(UserWarning, match="does nothing on one device"):
        teacher = pair().teacher
    view = random_views((CROPS,), 8)["v"][0]
    expected = teacher.eval()(view).pooled
    ranks = run_ranks(encoded)
    torch.testing.assert_close(torch.cat([pooled for pooled, *_ in ranks]), expected, atol=1e-5, rtol=1e-5)
    assert torch.cat([image for _, image, *_ in ranks]).tolist() == list(range(8))
    first, second = (mean for *_, mean in ranks)
    assert not torch.allclose(first, second)  # statistics of each rank's own images
    torch.manual_seed(0)
    torch.randperm(8)  # the first pass, in evaluation
    order = torch.randperm(8)
    shares = [
        teacher.train()(type(view)(*(f if f is None else f[rows] for f in view))).pooled for rows in order.chunk(2)
    ]
    together = torch.cat(shares)[order.argsort()]
    torch.testing.assert_close(torch.cat([trained for *_, trained, _ in ranks]), together, atol=1e-5, rtol=1e-4)
