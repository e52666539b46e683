import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from polygrain.evaluate.video.propagation import (
    Propagation,
    first_labels,
    follow,
    frame_size,
    prepared,
    propagate,
    to_mask,
)
from tests.references import make_propagation as references


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-3)


def slowly(target, sources, labels, *, neighbours, window, temperature):
    """Patch by patch: the labels of the most similar ones in the window, ties with the last of them included."""
    n, c, height, width = labels.shape
    result = torch.zeros(c, height, width)
    for y in range(height):
        for x in range(width):
            candidates = [
                (math.exp(float(target[:, y, x] @ sources[t, :, a, b]) / temperature), labels[t, :, a, b])
                for t in range(n)
                for a in range(height)
                for b in range(width)
                if abs(a - y) <= window and abs(b - x) <= window
            ]
            least = sorted((weight for weight, _ in candidates), reverse=True)[min(neighbours, len(candidates)) - 1]
            kept = [(weight, label) for weight, label in candidates if weight >= least]
            total = sum(weight for weight, _ in kept)
            result[:, y, x] = sum(weight / total * label for weight, label in kept)
    return result


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_labels_travel_as_patch_by_patch_loops_say(neighbours, window):
    target, sources = unit(6, 5, 7), unit(3, 6, 5, 7, seed=1)
    labels = torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(2))
    how = {"neighbours": neighbours, "window": window, "temperature": 0.1}
    torch.testing.assert_close(
        propagate(target, sources, labels, **how), slowly(target, sources, labels, **how), atol=1e-6, rtol=0
    )


def test_labels_and_masks_are_those_of_the_authors_code():
    theirs = json.loads((Path(references.__file__).parent / "propagation.json").read_text())
    first = F.one_hot(references.first_mask(), references.CLASSES).permute(2, 0, 1).float()
    how = Propagation(references.PREVIOUS, references.NEIGHBOURS, references.WINDOW, temperature=0.1)
    *_, labels = follow(references.features(), first, how)
    torch.testing.assert_close(labels.flatten(), torch.tensor(theirs["labels"]), atol=1e-6, rtol=0)
    mask = to_mask(labels, references.PATCH, (24, 36))
    assert ["".join(map(str, row)) for row in mask.tolist()] == theirs["ids"]
    full = to_mask(torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]), 1, (2, 2))
    assert full.flatten().tolist() == theirs["of_an_object_that_fills_the_frame"]


def test_a_low_temperature_is_the_most_similar_patch():
    target, sources = unit(6, 5, 7), unit(3, 6, 5, 7, seed=1)
    labels = torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(2))
    cold = propagate(target, sources, labels, window=12, temperature=1e-4)
    best = torch.einsum("dyx,ndab->yxnab", target, sources).flatten(2).argmax(-1)  # (5, 7)
    torch.testing.assert_close(cold, labels.transpose(0, 1).flatten(1)[:, best])


def test_blocks_of_any_size_give_the_same_labels():
    target, sources, labels = unit(6, 9, 7), unit(3, 6, 9, 7, seed=1), torch.rand(3, 2, 9, 7)
    whole = propagate(target, sources, labels, window=2)
    for block_bytes in (1, 4 * 3 * 7 * 7 * 6 * 2, 2**20):
        torch.testing.assert_close(propagate(target, sources, labels, window=2, block_bytes=block_bytes), whole)


def test_patches_that_tie_with_the_last_neighbour_all_count():
    same = torch.ones(1, 1, 4)  # four patches in a row, all alike
    labels = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 1, 4)
    found = propagate(same, same[None], labels, neighbours=1, window=12)
    assert found.flatten().tolist() == pytest.approx([0.5] * 4)


def test_labels_keep_adding_up_to_one():
    labels = F.one_hot(torch.randint(3, (2, 5, 7)), 3).permute(0, 3, 1, 2).float()
    found = propagate(unit(6, 5, 7), unit(2, 6, 5, 7, seed=1), labels)
    torch.testing.assert_close(found.sum(0), torch.ones(5, 7))


def test_the_context_is_the_first_frame_and_the_last_ones_with_labels_as_they_were_found():
    frames = [torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    first = F.one_hot(torch.arange(9).view(3, 3) % 2, 2).permute(2, 0, 1).float()
    how = Propagation(previous=2, neighbours=3, window=1, temperature=0.2)
    found = list(follow(frames, first, how))
    units = [F.normalize(frame, dim=0) for frame in frames]
    known = [first]
    for t in range(1, 6):
        context = [0, *range(max(1, t - 2), t)]
        expected = slowly(
            units[t],
            torch.stack([units[i] for i in context]),
            torch.stack([known[i] for i in context]),
            neighbours=3,
            window=1,
            temperature=0.2,
        )
        known.append(expected)
        torch.testing.assert_close(found[t - 1], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((480, 854), 480, (480, 832)),
        ((854, 480), 480, (832, 480)),
        ((480, 910), 480, (480, 896)),
        ((64, 64), 480, (480, 448)),
    ],
)
def test_frames_get_the_sizes_of_the_official_script(shape, size, wanted):
    if shape[0] == shape[1]:
        wanted = (480, 448)  # a square counts as lying: its width goes down to a multiple of 64
    assert frame_size(torch.zeros(3, *shape), size) == wanted


def test_a_size_whose_longer_side_goes_down_to_nothing_is_refused():
    with pytest.raises(ValueError, match=r"size is 32, and a frame of 854x480 .* use 64 or more"):
        frame_size(torch.zeros(3, 480, 854), 32)


def test_frames_are_resized_between_pixel_centres_without_smoothing():
    frame = torch.arange(0, 240, 30, dtype=torch.uint8).view(1, 1, 8).expand(3, 8, 8)
    small = prepared(frame, (4, 4), (0, 0, 0), (1, 1, 1))
    assert (255 * small[0, 0, 0]).tolist() == pytest.approx([15, 75, 135, 195])  # the mean of two neighbours each


def test_the_first_mask_keeps_the_channel_of_an_object_too_small_for_a_patch():
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    mask[31, 31] = 2
    labels = first_labels(mask, (4, 4))
    assert labels.shape == (3, 4, 4)
    assert labels[1].sum() == 8
    assert labels[2].sum() == 0
    assert torch.equal(labels.sum(0), torch.ones(4, 4))


def test_void_in_the_first_mask_is_background():
    mask = np.full((8, 8), 255, np.uint8)
    mask[:4] = 1
    assert first_labels(mask, (2, 2)).tolist() == [[[0, 0], [1, 1]], [[1, 1], [0, 0]]]


def test_faint_labels_are_stretched_before_the_largest_is_taken():
    labels = torch.stack([torch.full((2, 4), 0.9), torch.tensor([[0.0, 0, 0.1, 0.1]] * 2)])
    labels[0, :, 2:] = 0.8
    mask = to_mask(labels, 4, (8, 16))
    assert (mask[:, :6] == 0).all()
    assert (mask[:, 10:] == 1).all()


def test_an_object_that_is_gone_everywhere_is_background_without_nan():
    labels = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    assert (to_mask(labels, 4, (9, 9)) == 0).all()


def test_masks_have_the_size_of_the_frame():
    assert to_mask(torch.rand(3, 4, 6), 8, (70, 101)).shape == (70, 101)
