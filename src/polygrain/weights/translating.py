"""From the names of the authors' tensors to ours, by a key table."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polygrain.weights.account import Row
from polygrain.weights.tables import Anew, Rule, Table


def translate(
    tensors: Mapping[str, Tensor], table: Sequence[Rule | Anew], places: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Row]]:
    """New values of `places` and the fate of every tensor, by the first rule that matches its name."""
    rules = [rule for rule in table if isinstance(rule, Rule)]
    new: dict[str, Tensor] = {}
    rows = []
    for key, tensor in tensors.items():
        rule = next((rule for rule in rules if re.fullmatch(rule.pattern, key)), None)
        if rule is None or rule.left:
            rows.append(Row("left" if rule else "unknown", key, "", rule.left if rule else str(tuple(tensor.shape))))
            continue
        target = re.sub(rule.pattern, rule.target, key)
        value = rule.convert(tensor) if rule.convert else tensor
        row = _fate(key, target, value, places, taken=target in new)
        rows.append(row)
        if row.fate in ("matched", "converted"):
            new[target] = value
    named = {row.target for row in rows}
    anew = [rule for rule in table if isinstance(rule, Anew)]
    for key, place in places.items():
        if key in named:
            continue
        why = next((rule.why for rule in anew if re.fullmatch(rule.place, key)), None)
        rows.append(Row("anew", "", key, why) if why else Row("missing", "", key, str(tuple(place.shape))))
    return new, rows


def with_parts(places: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The same places, those that a table fills part by part as their parts: `name[0]`, `name[1]` ..."""
    parted = {rule.target.partition("[")[0] for rule in table if isinstance(rule, Rule) and "[" in rule.target}
    found: dict[str, Tensor] = {}
    for key, place in places.items():
        found |= {f"{key}[{i}]": part for i, part in enumerate(place)} if key in parted else {key: place}
    return found


def joined(new: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parts put together again; those that a file lacks stay what they are."""
    whole = {key: value for key, value in new.items() if not key.endswith("]")}
    for key in {key.partition("[")[0] for key in new.keys() - whole.keys()}:
        whole[key] = torch.stack([new.get(f"{key}[{i}]", part) for i, part in enumerate(places[key])])
    return whole


def _fate(key: str, target: str, value: Tensor, places: Mapping[str, Tensor], taken: bool) -> Row:
    shape = str(tuple(value.shape))
    if target not in places:
        owner = re.match(r"objectives\.(\w+)\.", target)
        if owner and not any(place.startswith(owner[0]) for place in places):
            return Row("left", key, "", f"this method has no objective {owner[1]!r}")
        return Row("unknown", key, target, f"{shape}: the network has no such tensor")
    if taken:
        return Row("unknown", key, target, f"{shape}: the file has two tensors for this")
    if value.is_floating_point() != places[target].is_floating_point():
        return Row("misfit", key, target, f"{value.dtype}, not {places[target].dtype}")
    if value.shape != places[target].shape:
        return Row("misfit", key, target, f"{shape}, not {tuple(places[target].shape)}")
    return Row("matched" if target == key else "converted", key, target, shape)
