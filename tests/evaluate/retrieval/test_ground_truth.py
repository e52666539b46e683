import json
import os
import pickle

import numpy as np
import pytest

from polygrain.evaluate.retrieval.ground_truth import PROTOCOLS, read_ground_truth

CONTENT = {
    "imlist": ["a", "b", "c", "d"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [0, 0, 5, 5], "easy": [0], "hard": [2], "junk": [3]},
        {"bbx": [0, 0, 5, 5], "easy": [1, 3], "hard": [], "junk": []},
    ],
}


def written(path, content):
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("name", ["truth.json", "truth.pkl"])
def test_json_and_pickle_say_the_same(tmp_path, name):
    truth = read_ground_truth(written(tmp_path / name, CONTENT))
    assert truth.database == ["a", "b", "c", "d"]
    assert truth.queries == ["q", "r"]
    medium, hard = (tuple(map(truth.flags, PROTOCOLS[kind])) for kind in ("medium", "hard"))
    assert medium[0].tolist() == [[True, False, True, False], [False, True, False, True]]
    assert medium[1].tolist() == [[False, False, False, True], [False] * 4]
    assert hard[0].tolist() == [[False, False, True, False], [False] * 4]
    assert hard[1].tolist() == [[True, False, False, True], [False, True, False, True]]


def test_arrays_in_a_pickle_are_read_too(tmp_path):
    content = {**CONTENT, "gnd": [{k: np.array(v) for k, v in entry.items()} for entry in CONTENT["gnd"]]}
    assert read_ground_truth(written(tmp_path / "truth.pkl", content)).answers[0]["hard"].tolist() == [2]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"it asks for posix.mkdir; only lists"):
        read_ground_truth(written(tmp_path / "truth.pkl", {**CONTENT, "imlist": Hostile()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gnd": CONTENT["gnd"][:1]}, "has 2 queries and answers to 1"),
        ({"imlist": ["a", "b"]}, "names image 2 of 2"),
        ({"gnd": [{"easy": []}, {}]}, "lacks 'hard'"),
    ],
)
def test_a_ground_truth_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_ground_truth(written(tmp_path / "truth.json", {**CONTENT, **change}))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "truth.json").write_text("no json")
    with pytest.raises(ValueError, match="cannot be read"):
        read_ground_truth(tmp_path / "truth.json")
    (tmp_path / "truth.pkl").write_bytes(b"\x80\x04no pickle")
    with pytest.raises(ValueError, match="cannot be read"):
        read_ground_truth(tmp_path / "truth.pkl")
    with pytest.raises(ValueError, match=r"a .json or .pkl file"):
        read_ground_truth(tmp_path / "truth.mat")
