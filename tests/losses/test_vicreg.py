import pytest
import torch
from torch import Tensor

from polygrain.losses import vicreg
from polygrain.losses.vicreg import invariance, mean_invariance, mean_spread, spread
from tests.references.dense_local_criterion import statistics


def grid(*counts: int) -> list[Tensor]:
    return list(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in counts], indexing="ij"))


def random_rows(images: int, patches: int, dim: int) -> Tensor:
    return torch.randn(images, patches, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_pair_terms_are_those_of_the_authors_code() -> None:
    b, m, c = grid(6, 3, 4)
    x = torch.sin(1 + 0.7 * b + 1.3 * m + 2.1 * c + 0.1 * b * m * c)
    y = torch.cos(0.5 + 0.9 * b + 0.4 * m + 1.7 * c + 0.05 * b * m * c)
    terms = 25 * invariance(x, y), 25 * mean_spread([x, y]).variance, mean_spread([x, y]).covariance
    assert [float(t) for t in terms] == pytest.approx([12.430461, 6.29853315, 0.38005134], abs=5e-9, rel=0)


def test_global_terms_of_four_views_are_those_of_the_authors_code() -> None:
    b, c = grid(6, 5)
    views = [torch.sin(0.3 + (v + 1) * 0.37 * b + 0.61 * c + 0.013 * v * b * c)[:, None] for v in range(4)]
    terms = 25 * mean_invariance(views), 25 * mean_spread(views).variance, mean_spread(views).covariance
    assert [float(t) for t in terms] == pytest.approx([19.96876183, 8.22609176, 0.41506675], abs=5e-9, rel=0)


def test_constant_rows_have_no_invariance_term_and_nearly_the_whole_variance_term() -> None:
    rows = torch.ones(8, 3, 16)
    assert float(25 * invariance(rows, rows)) == 0
    assert float(25 * spread(rows).variance) == pytest.approx(25 * (1 - 0.01))
    assert float(spread(rows).covariance) == 0


@pytest.mark.parametrize("dim", [3, 40])  # below and above the number of images: both products
def test_spread_of_chosen_weighted_slots_is_the_sum_of_dense_statistics_of_each(dim: int) -> None:
    rows = random_rows(9, 5, dim)
    slots = torch.randint(5, (9, 7), generator=torch.Generator().manual_seed(1))
    weights = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    chosen = rows.gather(1, slots[..., None].expand(-1, -1, dim))
    dense = [statistics(chosen[:, [m]]) for m in range(7)]
    expected = [float(sum(w * terms[k] for w, terms in zip(weights, dense, strict=True))) for k in (0, 1)]
    assert [float(t) for t in spread(rows, slots, weights)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dim", [3, 12])
def test_gradient_of_spread_is_that_of_finite_differences(dim: int) -> None:
    slots = torch.randint(3, (6, 4), generator=torch.Generator().manual_seed(1))
    rows = (0.8 * random_rows(6, 3, dim)).requires_grad_()  # stds on both sides of the hinge
    assert torch.autograd.gradcheck(lambda r: tuple(spread(r, slots)), (rows,))


def test_gradient_of_invariance_is_that_of_finite_differences() -> None:
    x, y = random_rows(4, 3, 5).requires_grad_(), (random_rows(4, 6, 5) * 2).requires_grad_()
    x_slots, y_slots = torch.tensor([[0, 2, 2]] * 4), torch.tensor([[5, 1, 0]] * 4)
    weights = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: invariance(a, b, x_slots, y_slots, weights), (x, y))


def test_working_in_chunks_changes_neither_value_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        rows = random_rows(6, 7, 8).requires_grad_()
        terms = (*spread(rows), invariance(rows, rows.flip(1)))
        torch.stack(terms).sum().backward()
        assert rows.grad is not None
        return [*(t.detach() for t in terms), rows.grad]

    whole = run()
    monkeypatch.setattr(vicreg, "CHUNK", {"cpu": 200})  # 2 slots at a time
    for one, other in zip(whole, run(), strict=True):
        torch.testing.assert_close(one, other)


def test_rows_in_another_memory_order_have_the_same_gradient() -> None:
    plain = random_rows(6, 3, 4).requires_grad_()
    permuted = plain.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not permuted.is_contiguous()
    for rows in (plain, permuted):
        torch.stack([*spread(rows), invariance(rows, rows.detach() ** 2)]).sum().backward()
    torch.testing.assert_close(permuted.grad, plain.grad)


def test_half_precision_rows_are_judged_in_full_precision_under_autocast() -> None:
    rows = random_rows(16, 2, 64).bfloat16().requires_grad_()
    exact = rows.detach().double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = (*spread(rows), invariance(rows, 2 * rows))
        torch.stack(terms).sum().backward()
    expected = (*spread(exact), invariance(exact, 2 * exact))
    torch.stack(expected).sum().backward()
    assert [t.dtype for t in terms] == [torch.float32] * 3
    assert [float(t.detach()) for t in terms] == pytest.approx([float(t.detach()) for t in expected], rel=1e-5)
    assert rows.grad is not None and exact.grad is not None
    assert (rows.grad - exact.grad).norm() < 0.004 * exact.grad.norm()  # bfloat16 rounds the sum of three gradients


def test_decorrelated_dimensions_of_unit_variance_cost_nothing() -> None:
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * 2
    assert [float(t) for t in spread(signs[:, None])] == [0, 0]


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images in a batch; got 1"):
        spread(torch.randn(1, 4, 8))
