import io

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.evaluate.unlabelled.changes import CHANGES, draws, flip, gray, hide, jpeg, roll, turn, usable


def pictures(count=6, side=32, channels=3):
    random = torch.Generator().manual_seed(0)
    small = torch.randint(256, (count, channels, side // 4, side // 4), generator=random)
    return small.repeat_interleave(4, 2).repeat_interleave(4, 3).float()


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_image_is_of_bytes_depends_on_no_other_and_leaves_the_first_alone(name):
    stack = pictures()
    before = stack.clone()
    images = [10, 11, 12, 13, 14, 15]
    together = CHANGES[name](stack, draws(0, name, images))
    assert (stack == before).all()
    assert ((together >= 0) & (together <= 255) & (together == together.round())).all()
    assert not (together == stack).all()
    alone = CHANGES[name](stack[3:4], draws(0, name, images[3:4]))
    assert (alone[0] == together[3]).all()


def test_what_is_random_follows_seed_change_and_image():
    def first(seed, change, image):
        return draws(seed, change, [image])[0].random()

    assert first(0, "zoom", 1) == first(0, "zoom", 1)
    assert len({first(0, "zoom", 1), first(1, "zoom", 1), first(0, "noise", 1), first(0, "zoom", 2)}) == 4


def test_flip_and_quarter_turns_move_pixels_and_change_none():
    stack = pictures()
    assert (flip(stack, [])[..., 0] == stack[..., -1]).all()
    turned = turn(stack, draws(0, "turn", range(6)))
    for before, after in zip(stack.numpy(), turned.numpy(), strict=True):
        assert any((after == np.rot90(before, k, (1, 2))).all() for k in (1, 3))


def test_gray_has_three_equal_channels():
    changed = gray(pictures(), [])
    assert (changed[:, 0] == changed[:, 1]).all()
    assert (changed[:, 0] == changed[:, 2]).all()


def test_jpeg_is_what_pillow_stores():
    picture = pictures()[0]
    file = io.BytesIO()
    Image.fromarray(picture.byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=15)
    assert (jpeg(picture[None], [])[0].permute(1, 2, 0).numpy() == np.asarray(Image.open(file))).all()


def test_the_hidden_square_is_a_quarter_of_the_image():
    hidden = hide(torch.zeros(4, 3, 32, 32), draws(0, "hide", range(4)))
    assert (hidden == 128).float().mean((1, 2, 3)).tolist() == [0.25] * 4


def test_a_shift_round_and_round_keeps_all_pixels():
    stack = pictures()
    rolled = roll(stack, draws(0, "roll", range(6)))
    assert (rolled.flatten(1).sort(1).values == stack.flatten(1).sort(1).values).all()


def test_images_that_are_no_colours_get_what_makes_sense_for_them():
    stack = pictures(channels=5)
    names = usable(5)
    assert "gray" not in names
    assert "JPEG" not in names
    for name, change in names.items():
        assert change(stack, draws(0, name, range(6))).shape == stack.shape
