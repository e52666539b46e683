import pytest
import torch

from polygrain.evaluate.settings.heads import HeadRecipe
from polygrain.evaluate.sweep import train_heads

RATES = (0.05, 0.3, 2.0)


def trained(features, labels, *rates, **changes):
    options = {"epochs": 4, "head_batch_size": 32, **changes}
    return train_heads(features, labels, classes=5, recipe=HeadRecipe(learning_rates=rates, **options), seed=3)


def cloud(n=150, dim=12):
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=random), torch.randint(5, (n,), generator=random)


def test_each_head_of_a_sweep_is_the_head_trained_alone():
    features, labels = cloud()
    together = trained(features, labels, *RATES)
    for j, rate in enumerate(RATES):
        alone = trained(features, labels, rate)
        assert torch.equal(together.weight[j], alone.weight[0])
        assert torch.equal(together.bias[j], alone.bias[0])


def test_a_head_is_what_torchs_sgd_with_a_cosine_by_epoch_makes():
    features, labels = cloud()
    random = torch.Generator().manual_seed(3)
    linear = torch.nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(0.01 * torch.randn(5, 12, generator=random))
        linear.bias.zero_()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.3 * 32 / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for _ in range(4):
        for rows in torch.randperm(150, generator=random).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(linear(features[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    ours = trained(features, labels, 0.3)
    torch.testing.assert_close(ours.weight[0], linear.weight.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.bias[0], linear.bias.detach(), atol=1e-6, rtol=1e-5)


def test_learning_rates_scale_with_the_batch():
    features, labels = cloud()
    whole = trained(features, labels, 0.1, head_batch_size=256)
    doubled = trained(features, labels, 0.05, head_batch_size=512)
    torch.testing.assert_close(whole.weight, doubled.weight)  # 150 features fit either batch


def test_one_hot_features_are_classified_without_error():
    labels = torch.arange(60) % 5
    heads = trained(torch.nn.functional.one_hot(labels).float(), labels, 5.0)
    assert torch.equal(heads.logits(torch.eye(5))[0].argmax(1), torch.arange(5))


def test_permuted_labels_teach_nothing_about_new_images():
    random = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 12, generator=random)
    truth = torch.randint(5, (3000,), generator=random)
    features = centres[truth] + 0.5 * torch.randn(3000, 12, generator=random)
    shuffled = truth[torch.randperm(1500, generator=random)]
    heads = trained(features[:1500], shuffled, 0.1)
    honest = trained(features[:1500], truth[:1500], 0.1)
    accuracy = [(h.logits(features[1500:])[0].argmax(1) == truth[1500:]).float().mean().item() for h in (heads, honest)]
    assert accuracy[0] == pytest.approx(0.2, abs=0.15)  # clusters are right or wrong together
    assert accuracy[1] > 0.8


def test_a_head_behind_a_batch_norm_with_lars_is_what_a_loop_by_hand_makes():
    """MAE's linear probe: BatchNorm without affine part, LARS with trust 1e-3, warm-up, cosine by step."""
    features, labels = cloud()
    random = torch.Generator().manual_seed(3)
    weight = (0.01 * torch.randn(5, 12, generator=random)).requires_grad_()
    bias = torch.zeros(5, requires_grad=True)
    norm = torch.nn.BatchNorm1d(12, eps=1e-6, affine=False)
    speeds, peak, step = [torch.zeros(5, 12), torch.zeros(5)], 0.3 * 32 / 256, 0
    for _ in range(4):
        for rows in torch.randperm(150, generator=random).split(32):
            at = step / 5
            rate = peak * at if at < 1 else peak * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (at - 1) / 3)).item())
            loss = torch.nn.functional.cross_entropy(norm(features[rows]) @ weight.T + bias, labels[rows])
            by_weight, by_bias = torch.autograd.grad(loss, [weight, bias])
            with torch.no_grad():
                by_weight = by_weight * 1e-3 * weight.norm() / by_weight.norm()
                for parameter, gradient, speed in zip((weight, bias), (by_weight, by_bias), speeds, strict=True):
                    speed.mul_(0.9).add_(gradient)
                    parameter.sub_(rate * speed)
            step += 1
    ours = trained(features, labels, 0.3, batch_norm=True, optimizer="lars", warmup_epochs=1, by_step=True)
    torch.testing.assert_close(ours.weight[0], weight.detach(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(ours.bias[0], bias.detach(), atol=1e-6, rtol=1e-4)
    norm.eval()
    torch.testing.assert_close(ours.logits(features)[0], norm(features) @ weight.T + bias, atol=1e-5, rtol=1e-4)


def test_weight_decay_and_a_lower_bound_are_those_of_torchs_sgd():
    features, labels = cloud()
    random = torch.Generator().manual_seed(3)
    linear = torch.nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(0.01 * torch.randn(5, 12, generator=random))
        linear.bias.zero_()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.3 * 32 / 256, momentum=0.9, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4, eta_min=0.01)
    for _ in range(4):
        for rows in torch.randperm(150, generator=random).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(linear(features[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    ours = trained(features, labels, 0.3, weight_decay=0.1, min_lr=0.01)
    torch.testing.assert_close(ours.weight[0], linear.weight.detach(), atol=1e-6, rtol=1e-5)
