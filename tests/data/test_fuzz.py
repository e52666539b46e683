import itertools
from pathlib import Path

import pytest

from polygrain.data.decoding import decode
from tests.data.fuzzing import Broken, Case, archives, cases, check_decode, check_shard, mended, seeds


def test_damaged_images_are_pictures_or_undecodable_and_a_cut_one_never_a_picture(real_images: Path):
    files = seeds(real_images)
    whole = {name: decode(data) for name, data in files.items()}
    outcomes = {check_decode(case, whole[case.of]) for case in itertools.islice(cases(files, seed=5), 1500)}
    assert outcomes == {"undecodable", "same picture", "another picture"}


def test_every_way_of_cutting_a_file_is_noticed(real_images: Path):
    files = seeds(real_images)
    for name, data in files.items():
        whole = decode(data)
        for length in range(0, len(data), max(1, len(data) // 40)):
            check_decode(Case(name, "cut", data[:length]), whole)


def test_every_flipped_bit_of_a_png_is_noticed_by_its_checksums(real_images: Path):
    for name in ("png 16", "png palette"):
        data = seeds(real_images)[name]
        whole = decode(data)
        for place in range(0, len(data), 7):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            check_decode(Case(name, "flip", bytes(damaged)), whole)


@pytest.mark.parametrize("hostile", [False, True])
def test_damaged_shards_are_refused_or_list_members_inside_the_file(real_images: Path, tmp_path: Path, hostile: bool):
    outcomes = []
    for case in itertools.islice(cases(archives(real_images), seed=6), 600):
        data = mended(case.data) if hostile else case.data
        outcomes.append(check_shard(data, tmp_path / "x.tar"))
    assert 0.1 < outcomes.count("refused") / len(outcomes) < 0.99


@pytest.mark.parametrize("kind", ["ustar", "gnu", "pax"])
def test_a_flipped_bit_in_any_header_of_a_shard_is_noticed(real_images: Path, tmp_path: Path, kind: str):
    data = archives(real_images)[kind]
    headers = [start for start in range(0, len(data), 512) if data[start + 257 : start + 262] == b"ustar"]
    assert len(headers) >= 5
    for place in (start + i for start in headers for i in range(0, 512, 13) if not 148 <= i < 156):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        assert check_shard(bytes(damaged), tmp_path / "x.tar") == "refused"


def test_the_rules_can_be_broken(real_images: Path):
    data = seeds(real_images)["bmp"]
    other = decode(seeds(real_images)["ppm"])[:, :-1]
    with pytest.raises(Broken, match="truncated file came back"):
        check_decode(Case("bmp", "cut", data), other)
    with pytest.raises(Broken, match="PNG"):
        check_decode(Case("png", "flip", data), other)
