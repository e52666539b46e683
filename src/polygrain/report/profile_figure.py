"""The granularity profile: what each model is worth at each granularity, in one figure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polygrain.evaluate.profile import Grain, Profile
from polygrain.report.html import Section

WIDTH, HEIGHT = 1100, 300  # units of the drawing
LEFT, TOP, BASE = 44, 26, 250
MODELS = 6  # colours of the page


def profile_section(names: Sequence[str], profiles: Sequence[Profile]) -> Section:
    """Groups of bars, one for each granularity from small to large, one bar for each model."""
    about = (
        "What the features are good for, from small to large: finding a region again, an image, its neighbours, its "
        "class. Bars are shares of right answers with 95 % intervals; the line across a bar is chance."
    )
    grains = list(dict.fromkeys(grain.name for profile in profiles for grain in profile.grains))
    found = [{grain.name: grain for grain in profile.grains} for profile in profiles]
    key = "".join(
        f"<span><i style='--c:var(--model-{m % MODELS})'></i>{escape(name)}</span>" for m, name in enumerate(names)
    )
    notes = "".join(
        f"<p class=note>{escape(name)}: {escape(note)}</p>"
        for name, profile in zip(names, profiles, strict=True)
        for note in profile.notes
    )
    body = f"<p class=key>{key}</p>{_drawing(names, grains, found)}{_table(names, grains, found)}"
    return Section("Granularity profile", about, body + _unlike(profiles) + notes)


def _unlike(profiles: Sequence[Profile]) -> str:
    """A line that says what was not the same for all models, since their bars stand side by side."""
    if len({profile.fingerprint for profile in profiles}) == 1:
        return ""
    facts = [flat(profile.facts) for profile in profiles]
    names = dict.fromkeys(name for one in facts for name in one)
    unlike = [name for name in names if len({str(one.get(name)) for one in facts}) > 1]
    return (
        "<p class=note>These models were not measured alike: they differ in "
        f"{escape(', '.join(unlike))} (see How this was made). Bars can be compared where this does not matter; "
        "--size shows all models images of one size.</p>"
    )


def flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested facts as one level: {"preprocessing crop": ...}."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found |= flat(value, f"{before}{name} ") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _drawing(names: Sequence[str], grains: Sequence[str], found: Sequence[dict[str, Grain]]) -> str:
    parts = []
    for tick in range(0, 101, 25):
        y = _height(tick / 100)
        parts.append(f"<line class=rule x1={LEFT} x2={WIDTH} y1={y:.1f} y2={y:.1f} />")
        parts.append(f"<text x={LEFT - 8} y={y + 4:.1f} text-anchor=end>{tick}</text>")
    room = (WIDTH - LEFT) / max(len(grains), 1)
    bar = min(46.0, 0.72 * room / len(found))
    for g, grain in enumerate(grains):
        middle = LEFT + (g + 0.5) * room
        parts.append(f"<text class=grain x={middle:.1f} y={BASE + 24} text-anchor=middle>{escape(grain)}</text>")
        for m, (name, values) in enumerate(zip(names, found, strict=True)):
            if grain in values:
                x = middle + (m - len(found) / 2) * bar
                parts.append(_bar(name, values[grain], x, bar, m % MODELS))
    told = "Granularity profile: the numbers are in the table below"
    return f"<svg class=profile viewBox='0 0 {WIDTH} {HEIGHT - 12}' role=img aria-label='{told}'>{''.join(parts)}</svg>"


def _bar(name: str, grain: Grain, x: float, width: float, colour: int) -> str:
    top, low, high, chance = (_height(v) for v in (grain.value, grain.low, grain.high, grain.chance))
    middle, inner = x + width / 2, width - 4
    return (
        f"<g><title>{escape(name)}, {escape(grain.name)}: {grain.value:.1%} "
        f"[{grain.low:.1%}, {grain.high:.1%}], chance {grain.chance:.1%}</title>"
        f"<rect x={x + 2:.1f} y={top:.1f} width={inner:.1f} height={max(BASE - top, 1):.1f} rx=2 "
        f"fill='var(--model-{colour})' />"
        f"<line class=whisker x1={middle:.1f} x2={middle:.1f} y1={low:.1f} y2={high:.1f} />"
        f"<line class=chance x1={x:.1f} x2={x + width:.1f} y1={chance:.1f} y2={chance:.1f} />"
        f"<text x={middle:.1f} y={high - 6:.1f} text-anchor=middle>{100 * grain.value:.0f}</text></g>"
    )


def _height(share: float) -> float:
    return BASE - (BASE - TOP) * min(max(share, 0.0), 1.0)


def _table(names: Sequence[str], grains: Sequence[str], found: Sequence[dict[str, Grain]]) -> str:
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = []
    for name in grains:
        told = [f"{values[name].about}; chance {values[name].chance:.1%}" if name in values else "" for values in found]
        alike = len({*told} - {""}) == 1
        cells = "".join(_cell(values.get(name), "" if alike else own) for values, own in zip(found, told, strict=True))
        of_all = f"<small>{escape(max(told))}</small>" if alike else ""
        rows.append(f"<tr><th scope=row>{escape(name)}{of_all}</th>{cells}</tr>")
    return (
        f"<details><summary>Numbers, and what they are of</summary><div class=scroll><table class=plain><thead><tr><th>"
        f"</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _cell(grain: Grain | None, told: str) -> str:
    if grain is None:
        return "<td>n/a</td>"
    interval = f"<small>[{100 * grain.low:.1f}, {100 * grain.high:.1f}]</small>"
    return f"<td><b>{grain.value:.1%}</b> {interval}<small class=told>{escape(told)}</small></td>"
