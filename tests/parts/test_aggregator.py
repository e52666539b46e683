import torch

from polygrain.parts.aggregator import Aggregator


def test_the_order_of_neighbours_does_not_matter() -> None:
    torch.manual_seed(0)
    aggregator = Aggregator(16, depth=2, heads=4)
    query, neighbours = torch.randn(3, 16), torch.randn(3, 5, 16)
    torch.testing.assert_close(
        aggregator(query, neighbours), aggregator(query, neighbours[:, torch.randperm(5)]), rtol=1e-5, atol=1e-6
    )


def test_a_neighbour_changes_the_outcome() -> None:
    torch.manual_seed(0)
    aggregator = Aggregator(16, depth=1, heads=4)
    query, neighbours = torch.randn(3, 16), torch.randn(3, 5, 16)
    other = neighbours.clone()
    other[1, 4] = torch.randn(16)
    difference = (aggregator(query, neighbours) - aggregator(query, other)).abs().amax(1)
    assert difference[1] > 0 and difference[0] == difference[2] == 0


def test_one_block_has_the_twelve_tensors_of_the_released_weights() -> None:
    shapes = {
        name.removeprefix("blocks.0."): tuple(p.shape)
        for name, p in Aggregator(384, depth=1, heads=6).named_parameters()
    }
    assert shapes == {
        "norm1.weight": (384,),
        "norm1.bias": (384,),
        "attn.qkv.weight": (1152, 384),
        "attn.qkv.bias": (1152,),
        "attn.proj.weight": (384, 384),
        "attn.proj.bias": (384,),
        "norm2.weight": (384,),
        "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384),
        "mlp.fc1.bias": (1536,),
        "mlp.fc2.weight": (384, 1536),
        "mlp.fc2.bias": (384,),
    }  # fmt: skip


def test_weights_start_normal_with_deviation_of_two_hundredths() -> None:
    torch.manual_seed(0)
    block = Aggregator(64, depth=1, heads=1).blocks[0]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight):
        assert abs(weight.std() - 0.02) < 0.001
    assert block.attn.qkv.bias.abs().sum() == 0
