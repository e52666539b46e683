import json

import numpy as np
import pytest

from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.result import Result
from polygrain.evaluate.settings import KnnSettings
from tests.evaluate.fakes import Coloured

LABELS = np.arange(16) % 4


def knn(model="pixels", labels=LABELS, seed=1, k=(3,), **changes):
    changes = {"size": 16, "workers": 0, **changes}
    return evaluate_knn(model, Coloured(labels, seed=seed), Coloured(LABELS, seed=2), KnnSettings(k=k, **changes))


def test_two_models_under_one_protocol_have_one_fingerprint():
    assert knn().fingerprint == knn(RawPixels(patch_size=4)).fingerprint
    assert knn().fingerprint == knn(batch_size=3, workers=1).fingerprint  # how fast is no part of it


@pytest.mark.parametrize(
    "changes",
    [
        {"k": (4,)},
        {"labels": (LABELS + 1) % 4},
        {"labels": LABELS[:8]},
        {"size": 32},
        {"resize": 20},
        {"temperature": 0.1},
        {"seed": 5},
    ],
    ids=str,
)
def test_what_decides_a_number_changes_the_fingerprint(changes):
    if changes == {"seed": 5}:
        other = evaluate_knn(  # other images, by their names
            "pixels", Renamed(LABELS, seed=5), Coloured(LABELS, seed=2), KnnSettings(k=(3,), size=16, workers=0)
        )
    else:
        other = knn(**changes)
    assert other.fingerprint != knn().fingerprint


class Renamed(Coloured):
    def name(self, i):
        return f"photograph {i}"


def result(**changes):
    fields = {"protocol": "p", "description": "In words", "scores": {}, "facts": {}, "model": {}, "details": {}}
    return Result(**{**fields, **changes})


def test_facts_of_a_row_are_in_its_own_fingerprint_and_in_no_other():
    one, other = (result(scores={"a": {}, "b": {}}, row_facts={"b": {"grid": grid}}) for grid in (2, 8))
    assert one.fingerprint == one.fingerprint_of("a") == other.fingerprint_of("a")
    assert len({one.fingerprint_of("b"), other.fingerprint_of("b"), one.fingerprint}) == 3
    assert json.loads(one.json())["row_fingerprints"] == {"b": one.fingerprint_of("b")}
    assert f"protocol {one.fingerprint_of('b')} of b" in one.table()


def test_a_table_shows_shares_in_per_cent_with_their_intervals():
    scores = {"k=5": {"top1": 0.5, "top1_low": 0.401, "top1_high": 0.6}, "k=10": {"top1": 1.0, "top5": 1.0}}
    lines = result(scores=scores, about="what it is", notes=("a note",)).table().splitlines()
    assert lines[0] == "In words"
    assert lines[2].split() == ["top-1", "top-5"]
    assert lines[3].split() == ["k=5", "50.00%", "[40.1,", "60.0]"]
    assert lines[4].split() == ["k=10", "100.00%", "100.00%"]
    assert "what it is" in lines
    assert lines[-1] == "note: a note"
    assert len({len(line) for line in lines[2:4]}) <= 2


def test_a_plain_metric_is_no_share():
    scores = {"all": {"rank_me": 12.3456, "rank_me_low": 11.0, "rank_me_high": 13.25}}
    table = result(scores=scores, plain=("rank_me",)).table()
    assert "12.35 [11, 13.25]" in table
    assert "rank me" in table


def test_json_holds_the_protocol_and_no_items():
    made = result(facts={"k": 3}, items={"k=5": np.ones(4)})
    spelt = json.loads(made.json())
    assert spelt["facts"] == {"k": 3}
    assert spelt["fingerprint"] == made.fingerprint
    assert "items" not in spelt


def test_a_number_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        result(scores={"all": {"top1": float("nan")}}).json()
