import pytest
import torch

from polygrain.evaluate.sweep import train_heads

RATES = (0.05, 0.3, 2.0)
OPTIONS = {"classes": 5, "epochs": 4, "batch_size": 32, "seed": 3}


def cloud(n=150, dim=12):
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=random), torch.randint(5, (n,), generator=random)


def test_each_head_of_a_sweep_is_the_head_trained_alone():
    features, labels = cloud()
    together = train_heads(features, labels, learning_rates=RATES, **OPTIONS)
    for j, rate in enumerate(RATES):
        alone = train_heads(features, labels, learning_rates=(rate,), **OPTIONS)
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
    ours = train_heads(features, labels, learning_rates=(0.3,), **OPTIONS)
    torch.testing.assert_close(ours.weight[0], linear.weight.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.bias[0], linear.bias.detach(), atol=1e-6, rtol=1e-5)


def test_learning_rates_scale_with_the_batch():
    features, labels = cloud()
    whole = train_heads(features, labels, learning_rates=(0.1,), **{**OPTIONS, "batch_size": 256})
    doubled = train_heads(features, labels, learning_rates=(0.05,), **{**OPTIONS, "batch_size": 512})
    torch.testing.assert_close(whole.weight, doubled.weight)  # 150 features fit either batch


def test_one_hot_features_are_classified_without_error():
    labels = torch.arange(60) % 5
    heads = train_heads(torch.nn.functional.one_hot(labels).float(), labels, learning_rates=(5.0,), **OPTIONS)
    assert torch.equal(heads.logits(torch.eye(5))[0].argmax(1), torch.arange(5))


def test_permuted_labels_teach_nothing_about_new_images():
    random = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 12, generator=random)
    truth = torch.randint(5, (3000,), generator=random)
    features = centres[truth] + 0.5 * torch.randn(3000, 12, generator=random)
    shuffled = truth[torch.randperm(1500, generator=random)]
    heads = train_heads(features[:1500], shuffled, learning_rates=(0.1,), **OPTIONS)
    honest = train_heads(features[:1500], truth[:1500], learning_rates=(0.1,), **OPTIONS)
    accuracy = [(h.logits(features[1500:])[0].argmax(1) == truth[1500:]).float().mean().item() for h in (heads, honest)]
    assert accuracy[0] == pytest.approx(0.2, abs=0.15)  # clusters are right or wrong together
    assert accuracy[1] > 0.8
