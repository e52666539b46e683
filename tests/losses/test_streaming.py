import pytest
import torch

from polygrain.losses import streaming
from polygrain.losses.streaming import logsumexp_of_products


@pytest.fixture(params=[1, 3, 8, 64])
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK", request.param)


@pytest.mark.usefixtures("small_chunks")
def test_value_and_gradient_are_those_of_the_dense_log_sum_exp() -> None:
    queries, rows = torch.randn(5, 4, requires_grad=True), torch.randn(20, 4)
    lse, highest = logsumexp_of_products(queries, rows, 3.0)
    dense = (3.0 * queries @ rows.T).logsumexp(1)
    torch.testing.assert_close(lse, dense)
    torch.testing.assert_close(highest, (3.0 * queries @ rows.T).amax(1))
    outer = torch.randn(5)
    torch.testing.assert_close(
        torch.autograd.grad(lse, queries, outer)[0], torch.autograd.grad(dense, queries, outer)[0]
    )


@pytest.mark.usefixtures("small_chunks")
def test_products_of_any_size_do_not_overflow() -> None:
    queries = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    rows = torch.tensor([[500.0], [-500.0], [400.0]])
    lse, _ = logsumexp_of_products(queries, rows, 1.0)
    torch.testing.assert_close(lse, torch.tensor([500.0, 500.0]))
    (gradient,) = torch.autograd.grad(lse.sum(), queries)
    torch.testing.assert_close(gradient, torch.tensor([[500.0], [-500.0]]))
