"""Errors of worker processes."""

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from polygrain.cli import main
from polygrain.data.decoding import Undecodable
from polygrain.evaluate.loading import from_workers


class Raising(Dataset):
    """Has nothing to give."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error",
    [Undecodable("4 images in a row cannot be decoded, from 'a: 1' to 'b'"), OSError("no such place"), ValueError("")],
)
def test_an_error_of_a_worker_is_what_it_would_have_been_without_one(error, workers):
    with pytest.raises(type(error)) as caught:
        list(from_workers(DataLoader(Raising(error), num_workers=workers)))
    assert str(caught.value) == str(error)


def test_what_workers_load_comes_in_order():
    assert np.concatenate(list(from_workers(DataLoader(range(10), batch_size=3, num_workers=2)))).tolist() == [
        *range(10)
    ]


@pytest.mark.parametrize("protocol", ["retrieve", "copies", "unlabelled"])
def test_images_of_which_none_can_be_decoded_are_told_in_one_line(protocol, tmp_path, capfd):
    for i in range(24):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 2}" / f"{i:02}.png").write_bytes(b"no picture")
    options = ["--size", "32", "--workers", "1", *(["--cache", "none"] if protocol != "copies" else [])]
    assert main(["evaluate", protocol, "pixels", "--data", str(tmp_path), *options]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("polygrain evaluate: error: 24 images in a row cannot be decoded, from '")
    assert not any("Traceback" in line for line in lines)
