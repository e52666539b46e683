import dataclasses
from dataclasses import dataclass

import pytest

from polygrain.evaluate.protocols import PROTOCOLS
from polygrain.evaluate.settings.comparing import CompareSettings
from polygrain.evaluate.settings.embedding import EmbedSettings
from polygrain.methods import METHODS
from polygrain.methods.adding import ADDABLE
from polygrain.ranges import COUNT, PART, POSITIVE, check_ranges
from polygrain.train.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int | None = 1
    rate: float = 0.1
    scale: tuple[float, float] = (0.1, 1.0)
    free: float = -5.0

    def __post_init__(self) -> None:
        check_ranges(self, {COUNT: "count", POSITIVE: "rate", PART: "scale"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": 0}, "count is 0; it must be 1 or more"),
        ({"count": 10**12}, "count is 1000000000000; it must be 1 or more, at most 1,000,000,000"),
        ({"count": 2.5}, r"count is 2\.5; it must be a whole number"),
        ({"rate": 0.0}, r"rate is 0\.0; it must be above 0"),
        ({"rate": float("nan")}, "rate is nan; it must be above 0"),
        ({"rate": float("inf")}, "rate is inf; it must be above 0"),
        ({"scale": (0.0, 1.0)}, r"scale is \(0\.0, 1\.0\); it must be above 0 and at most 1"),
        ({"free": float("nan")}, "free is nan; it must be a number"),
    ],
)
def test_a_number_out_of_its_range_is_named_with_its_bounds(change: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Example(**change)  # type: ignore[arg-type]


def test_numbers_at_their_bounds_and_none_pass() -> None:
    assert Example(count=None, scale=(1.0, 1.0)).count is None


EVALUATIONS = [CompareSettings, EmbedSettings, *(protocol.settings for protocol in PROTOCOLS.values())]


@pytest.mark.parametrize("settings", [*METHODS.values(), *ADDABLE.values(), PretrainSettings, *EVALUATIONS])
def test_no_number_of_any_setting_may_be_nan_and_none_that_counts_may_be_negative(settings: type) -> None:
    given = {"data": "d", "out": "o"} if settings is PretrainSettings else {}
    for field in dataclasses.fields(settings):
        pair = "tuple" in str(field.type)
        kinds = [kind for kind in (int, float) if kind.__name__ in str(field.type)]
        for kind in kinds:
            for bad in (float("nan"), float("inf"), *([-2] if kind is int and not pair else [])):
                with pytest.raises(ValueError, match=f"{field.name} is "):
                    settings(**given, **{field.name: (bad, bad) if pair else bad})
