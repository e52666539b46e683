import pytest
import torch
import torch.nn.functional as F

from polygrain.evaluate.segmentation.sets import VOID
from polygrain.evaluate.segmentation.windows import Whole, at_full_size, resized, segmented, sliding, starts


def logits_of(pixels):
    """Three channels of averages of 4x4 blocks, and the number of the block in the window."""
    maps = F.avg_pool2d(pixels, 4)
    place = torch.arange(maps[0, 0].numel(), dtype=maps.dtype).view(1, 1, *maps.shape[2:])
    return torch.cat([maps, place], dim=1)


def picture(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("window", [0, 24, 40])
def test_one_window_is_the_whole_picture(window):
    pixels = picture(20, 24)
    whole = at_full_size(logits_of, pixels, 4)
    assert torch.equal(sliding(logits_of, pixels, 4, window=window, stride=8), whole)


def test_windows_leave_no_gap_and_end_with_the_picture():
    for length in range(1, 60):
        for stride in (1, 3, 8):
            places = starts(length, 8, stride)
            seen = {x for start in places for x in range(start, min(start + 8, length))}
            assert seen == set(range(length))
            assert places == sorted(set(places))
            assert places[-1] == max(0, length - 8)


def test_the_papers_windows_of_a_picture_of_683_px():
    assert starts(683, 512, 341) == [0, 171]
    assert starts(1024, 512, 341) == [0, 341, 512]


def test_each_pixel_is_the_mean_of_the_windows_that_hold_it():
    pixels = picture(19, 30)
    found = sliding(logits_of, pixels, 4, window=12, stride=7)
    total, count = torch.zeros(4, 19, 30), torch.zeros(19, 30)
    for top in (0, 7):
        for left in (0, 7, 14, 18):
            logits = at_full_size(logits_of, pixels[..., top : top + 12, left : left + 12], 4)[0]
            for y in range(12):
                for x in range(12):
                    total[:, top + y, left + x] += logits[:, y, x]
                    count[top + y, left + x] += 1
    assert count.min() >= 1
    assert torch.allclose(found[0], total / count, atol=1e-5)


def test_constant_logits_stay_what_they_are_under_overlapping_windows():
    def ones(pixels):
        return torch.ones(1, 2, pixels.shape[2] // 4, pixels.shape[3] // 4)

    assert torch.equal(sliding(ones, picture(21, 33), 4, window=16, stride=5), torch.ones(1, 2, 21, 33))


def test_a_padded_picture_answers_for_its_own_pixels():
    pixels = picture(10, 13)
    logits = at_full_size(logits_of, pixels, 4)
    filled = F.pad(pixels, (0, 3, 0, 2))
    expected = F.interpolate(logits_of(filled), size=(12, 16), mode="bilinear")[..., :10, :13]
    assert torch.equal(logits, expected)


def test_logits_are_enlarged_to_the_mask_before_the_largest_is_taken():
    image = Whole(picture(8, 12), torch.full((20, 30), VOID))
    (found,) = segmented(logits_of, image, 4, window=0, stride=1)
    logits = F.interpolate(at_full_size(logits_of, image.pixels, 4), size=(20, 30), mode="bilinear")
    assert torch.equal(found, logits[0].argmax(0))


def test_heads_are_told_apart():
    def two_heads(pixels):
        maps = logits_of(pixels)
        return torch.cat([maps, -maps], dim=1)

    image = Whole(picture(8, 12), torch.zeros(8, 12))
    first, second = segmented(two_heads, image, 4, window=0, stride=1, heads=2)
    logits = at_full_size(logits_of, image.pixels, 4)[0]
    assert torch.equal(first, logits.argmax(0))
    assert torch.equal(second, logits.argmin(0))


def test_the_short_side_is_brought_to_the_size_and_the_long_one_stays_below_four_times():
    assert resized(torch.zeros(3, 360, 480, dtype=torch.uint8), 180).shape == (3, 180, 240)
    assert resized(torch.zeros(3, 100, 1000, dtype=torch.uint8), 50).shape == (3, 20, 200)
