import torch
from torch import Tensor, nn

from polygrain.parts.batch_norm import SyncedBatchNorm, synchronise_batch_norm
from tests.ranks import run_ranks


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4), nn.BatchNorm1d(4)
    )


def images() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def losses_and_gradients(share: slice) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    net = network()
    synchronise_batch_norm(net)
    target = torch.arange(24.0).view(6, 4)
    loss = (net(images()[share]) - target[share]).square().mean()
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}, net.state_dict()


def on_rank() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    rank = torch.distributed.get_rank()
    return losses_and_gradients(slice(3 * rank, 3 * rank + 3))


def test_two_ranks_normalise_as_one_with_the_whole_batch() -> None:
    net = network()
    loss = (net(images()) - torch.arange(24.0).view(6, 4)).square().mean()
    loss.backward()
    (loss_0, gradient_0, state_0), (loss_1, gradient_1, state_1) = run_ranks(on_rank)
    torch.testing.assert_close((loss_0 + loss_1) / 2, loss.detach())
    for name, parameter in net.named_parameters():
        torch.testing.assert_close((gradient_0[name] + gradient_1[name]) / 2, parameter.grad, atol=1e-5, rtol=1e-4)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(state_0[name], value)
        assert torch.equal(state_0[name], state_1[name])


def test_synchronising_keeps_tensors_and_names() -> None:
    net = network()
    before = {name: value.data_ptr() for name, value in net.state_dict().items()}
    synchronise_batch_norm(net)
    assert isinstance(net[1], SyncedBatchNorm)
    assert {name: value.data_ptr() for name, value in net.state_dict().items()} == before
