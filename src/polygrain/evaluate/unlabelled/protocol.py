"""Everything that can be said about a model's features without labels, granularity by granularity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polygrain.evaluate.labelled import constant
from polygrain.evaluate.metrics import Scores
from polygrain.evaluate.profile import CONSTANT, Grain, profile_of
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Estimate, Sample, over_runs
from polygrain.evaluate.settings.unlabelled import UnlabelledSettings
from polygrain.evaluate.unlabelled.changes import usable
from polygrain.evaluate.unlabelled.group import gaussian, grouping
from polygrain.evaluate.unlabelled.instance import cosines_to_self_and_others, found, ignored, whitening
from polygrain.evaluate.unlabelled.looking import Opened, Regions, look, open_and_draw
from polygrain.evaluate.unlabelled.neighbourhood import neighbour_lists
from polygrain.evaluate.unlabelled.region import Leak, position_leak
from polygrain.evaluate.unlabelled.spectrum import (
    alpha_req,
    effective_rank,
    lidar,
    nesum,
    stable_rank,
)
from polygrain.evaluate.unlabelled.sphere import alignment, uniformity
from polygrain.evaluate.unlabelled.twins import near_duplicates
from polygrain.losses.gauges import rankme, spread

Rows = dict[str, Scores]
PER_CLUSTER = 5  # images, at least, on average


def evaluate_unlabelled(model: Any, data: Any, settings: UnlabelledSettings | None = None) -> Result:
    """Spectrum, regions, instances, neighbourhoods and groups of a model's features of images without labels.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or UnlabelledSettings()
    opened = open_and_draw(model, data, settings)
    looked = look(opened, settings, usable(opened.model.encoder.channels))
    plain, notes = opened.plain, list(opened.notes)
    rows: Rows = spectrum(plain, looked.views)
    grains: dict[str, Grain] = {}
    details = dict(opened.details)
    if constant(plain):
        notes.append(f"{CONSTANT}; what compares images is left out")
    else:
        grains = {_row(grain): grain for grain in profile_of(opened, looked, settings)}
        rows |= region(looked.regions, settings.seed) | {name: _scores(grain) for name, grain in grains.items()}
        if looked.regions.grid == (1, 1):
            notes.append(f"at {opened.size} px this model's map is one cell, which has no regions; --size gives more")
        rows |= instance(looked.changed, plain, settings.seed)
        more, pairs = neighbourhood(opened, looked.views, settings)
        rows |= more
        details["near_duplicates"] = pairs
        if pairs:
            notes.append(f"near-duplicates among neighbours, such as {pairs[0][0]!r} and {pairs[0][1]!r}")
        left_out = [k for k in settings.clusters if PER_CLUSTER * k > len(plain)]
        if left_out:
            notes.append(f"{left_out} clusters are too many for {len(plain)} images and left out")
        rows |= group(plain, looked.views, [k for k in settings.clusters if k not in left_out], settings.seed)
    return Result(
        protocol="unlabelled",
        description=(
            f"Without labels: {len(plain):,} images drawn from the data, {len(looked.views):,} of them also in "
            f"{settings.views} random crops and colours and under each single change; 95 % intervals from 1,000 "
            "bootstrap resamples of the images, of groups from 5 runs"
        ),
        scores={name: rows[name] for name in sorted(rows, key=_granularity)},
        facts=opened.facts,
        model=opened.described,
        details=details,
        notes=tuple(notes),
        plain=("value", "most"),
        about=f"{opened.model.name} on {details['data']}",
        row_facts={row: {"grid": list(looked.regions.grid)} for row in rows if row.startswith("region:")},
        items={name: grain.sample for name, grain in grains.items()},
    )


ORDER = ("spectrum", "region", "instance", "neighbourhood", "group")


def _granularity(row: str) -> int:
    return ORDER.index(row.split(":")[0])


def spectrum(plain: Tensor, views: Tensor) -> Rows:
    """Ranks and the sphere.

    Args:
        plain: (N, D); `views`: (M, V, D).
    """
    most = float(min(plain.shape))
    law = alpha_req(plain)
    rows = {
        "RankMe": {"value": float(rankme(plain)), "most": most},
        "effective rank": {"value": effective_rank(plain), "most": most},
        "effective rank, centred": {"value": effective_rank(plain, centred=True), "most": most},
        "stable rank": {"value": stable_rank(plain), "most": most},
        "stable rank, centred (NESum)": {"value": nesum(plain), "most": most},
        "LiDAR": {"value": lidar(views), "most": float(min(views.shape[2], len(views) - 1))},
        "alignment": {"value": alignment(views[:, 0], views[:, 1])},
        "uniformity": {"value": uniformity(plain)},
        "std collapse": {"value": float(spread(plain.double()))},
    }
    if law is not None:
        rows["alpha-ReQ"] = {"value": law.alpha}
        rows["alpha-ReQ, R2 of the fit"] = {"value": law.r2}
    return {f"spectrum: {name}": scores for name, scores in rows.items()}


def region(regions: Regions, seed: int) -> Rows:
    """What the patches tell apart, and how much place leaks into them."""
    if regions.grid == (1, 1):
        return {}
    ranks = Sample(regions.ranks.numpy()).estimate(seed=seed)
    cosines = torch.stack([regions.agreement.same, regions.agreement.other], 1)
    cosines = cosines[~cosines.isnan().any(1)]
    patches = regions.patches.flatten(0, 1)
    rows: Rows = {
        "region: rank of the patches of an image": {**ranks.scores("value"), "most": float(regions.largest_rank)},
        "region: rank of the patches of all images": {
            "value": effective_rank(patches, centred=True),
            "most": float(min(patches.shape)),
        },
    }
    if float(regions.ranks.max()) > 0 and len(cosines):
        same = Sample(cosines.numpy(), ignored).estimate(seed=seed).scores("score")
        rows["region: same place, other crop"] = same | {"chance": 0.0}
    for name, seen in (("position, content shifted", regions.rolled), ("position and content", regions.patches)):
        rows[f"region: {name}"] = _explained(position_leak(seen, regions.places), seed).scores("score")
    return rows


def _explained(leak: Leak, seed: int) -> Estimate:
    values = torch.stack([leak.error, leak.total], 1).numpy()
    return Sample(values, lambda means: 1 - means[..., 0] / means[..., 1]).estimate(seed=seed)


def _row(grain: Grain) -> str:
    """What a granularity of the profile is called here."""
    names = {"region": "patch finds its place", "instance": "crop finds its image", "neighbourhood": "neighbours stay"}
    return f"{grain.name}: {names[grain.name]}"


def _scores(grain: Grain) -> Scores:
    return {"score": grain.value, "score_low": grain.low, "score_high": grain.high, "chance": grain.chance}


def instance(changed: Mapping[str, Tensor], plain: Tensor, seed: int) -> Rows:
    """One row for each change: how far it is ignored, and how often the image is found by its changed self."""
    white = whitening(plain)
    rows: Rows = {}
    for name, vectors in changed.items():
        cosines = cosines_to_self_and_others(white(vectors), white(plain))
        rows[f"instance: ignores {name}"] = {
            **Sample(cosines, ignored).estimate(seed=seed).scores("score"),
            **Sample(found(vectors, plain)).estimate(seed=seed).scores("found"),
            "chance": 0.0,
        }
    return rows


def neighbourhood(opened: Opened, views: Tensor, settings: UnlabelledSettings) -> tuple[Rows, list[tuple[str, str]]]:
    """Near-duplicates among the neighbours, and the first pairs of them by name."""
    k = min(settings.neighbours, len(opened.plain) - 1)
    lists = neighbour_lists(opened.plain, opened.plain, k)
    twins = near_duplicates(opened.images, opened.positions, lists, workers=settings.workers)
    share = Sample(twins.with_one.astype(np.float64)).estimate(seed=settings.seed)
    return {"neighbourhood: near-duplicate nearby": share.scores("score")}, twins.pairs


def group(plain: Tensor, views: Tensor, clusters: list[int], seed: int) -> Rows:
    """Balance and stability at each number of clusters."""
    rows: Rows = {}
    cloud = gaussian(plain, seed)
    for count in clusters:
        seen = grouping(plain, views[:, 0], cloud, count, seed=seed)
        rows[f"group: {count} clusters, balance"] = over_runs(seen.balance).scores("score")
        again = over_runs(seen.stable).scores("score") | {"chance": float(seen.stable_by_shape.mean())}
        rows[f"group: {count} clusters, found again"] = again
        kept = over_runs(seen.kept).scores("score") | {"chance": 0.0}
        rows[f"group: {count} clusters, kept when changed"] = kept
    return rows
