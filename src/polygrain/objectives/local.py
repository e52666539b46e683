"""VICRegL's local criterion: regions that lie at the same place, or look alike, get alike vectors. For any method."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from polygrain.distributed import gather, gather_with_gradient
from polygrain.losses.matching import Matches, feature_distances, location_distances, nearest
from polygrain.losses.vicreg import Spread, full_precision, invariance, mean_spread, spread
from polygrain.objectives.base import Objective
from polygrain.objectives.vicreg import dead_spread, spread_of_unit_vectors
from polygrain.parts.heads import Norm, mlp
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

PAPER_MAP = 49  # cells of the 7 x 7 map for which the paper gives its numbers of matches
PAPER_MATCHES = (20, 4)
ALL = -1
Criterion = Literal["feature", "location"]


class Matching(NamedTuple):
    """One search: for each patch of view `source` its nearest in view `target`; the nearest pairs are `kept`."""

    criterion: Criterion
    source: int
    target: int
    kept: int


class Local(Objective):
    """Matched patch vectors of two views agree, and slots neither shrink nor correlate over images.

    The first two views are pivots: each is matched with every other view, in both directions, by feature (nearest
    projected vector) and by location (nearest patch centre in the source image). A criterion's terms are averaged
    over directions and pairs, those of the two criteria are added (VICRegL, arXiv:2210.01571, sec. 3.2, and code).
    Matching is without gradient; both sides of a match receive gradient.

    Where a released default contradicts the paper we follow the paper: see `flip_grid`.

    Args:
        widths: of the projector, which is applied to each patch by itself; its input included.
        norm: of the projector's hidden layers; "batch" takes its statistics over the images and patches of a view.
        num_matches: pairs to keep from a pivot to another view, and from another view to a pivot; -1 keeps one for
            every patch. None is the paper's 20 and 4 for every 49 patches of a pivot, at most the patches there are.
        feature: match by feature.
        location: match by location.
        all_feature_matches: keep a pair for every patch when matching by feature, as the authors' default does.
        spread_once: take variance and covariance once per view over all patches, instead of over each set of
            matches: cheaper (the intent of the authors' `fast_vc_reg`, which at their last commit cannot run).
        small_crops: match small crops with the pivots too, not the large views alone.
        flip_grid: a mirrored crop has a mirrored grid. The authors' released default has it unmirrored, which labels
            matches wrongly in the three quarters of pairs in which a view is flipped; False does that.
    """

    granularity = "region"
    least_images = 2  # one image has no variance

    def __init__(
        self,
        widths: Sequence[int],
        *,
        norm: Norm,
        num_matches: tuple[int, int] | None = None,
        feature: bool = True,
        location: bool = True,
        all_feature_matches: bool = True,
        spread_once: bool = False,
        small_crops: bool = False,
        flip_grid: bool = True,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        if not (feature or location):
            raise ValueError("local matching is switched off both by feature and by location; switch one on")
        if num_matches is not None and not all(count == ALL or count >= 1 for count in num_matches):
            raise ValueError(f"num_matches is {num_matches}; each must be 1 or more, or {ALL} for all patches")
        self.projector = mlp(widths, activation="relu", norm=norm, last_bias=False)
        self.num_matches = num_matches
        on = {"feature": feature, "location": location}
        self.criteria: list[Criterion] = [criterion for criterion in ("feature", "location") if on[criterion]]
        self.all_feature_matches = all_feature_matches
        self.spread_once = spread_once
        self.small_crops = small_crops
        self.flip_grid = flip_grid
        self.coefficients = (invariance, variance, covariance)
        self.dead_values = dead_spread(variance * (1 if spread_once else len(self.criteria)))

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        views = self._large_first(student)
        embeddings = [self.project(view.patches) for view in views]  # V of (B, P, D)
        maps = [gather_with_gradient(embedding) for embedding in embeddings]  # V of (N, P, D)
        plan = self._plan([view.patches.shape[1] for view in views])
        matches = self._match(views, embeddings, list(plan))
        spreads = mean_spread(maps) if self.spread_once else spread_of_matches(maps, matches, plan)
        self.gauges = {"embedding_std": spread_of_unit_vectors(maps[0])}
        by_invariance, by_variance, by_covariance = self.coefficients
        return {
            "invariance": by_invariance * invariance_of_matches(maps, matches, plan),
            "variance": by_variance * spreads.variance,
            "covariance": by_covariance * spreads.covariance,
        }

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        largest = max((crops.size for crops in student), default=0)
        views = sum(crops.count for crops in student if crops.size == largest)
        if views < 2:
            return f"local matching needs at least two views of the largest size; this method's student sees {views}"
        return None

    def project(self, patches: Tensor) -> Tensor:
        """(B, P, C) to local embeddings (B, P, D) in full precision."""
        flat = full_precision(self.projector(patches.flatten(0, 1)))
        return flat.view(*patches.shape[:2], -1)

    def _large_first(self, student: Sequence[Encoding]) -> list[Encoding]:
        largest = max(encoding.view.pixels.shape[-1] for encoding in student)
        large = [encoding for encoding in student if encoding.view.pixels.shape[-1] == largest]
        small = [encoding for encoding in student if encoding.view.pixels.shape[-1] < largest]
        return large + (small if self.small_crops else [])

    def _plan(self, patches: Sequence[int]) -> dict[Matching, float]:
        """The searches that views of so many patches need, each once, with its share in the mean over ordered pairs."""
        pairs = [(pivot, other) for pivot in (0, 1) for other in range(len(patches)) if other != pivot]
        plan: dict[Matching, float] = defaultdict(float)
        for pivot, other in pairs:
            for criterion in self.criteria:
                for source, target, direction in ((pivot, other, 0), (other, pivot, 1)):
                    kept = self._kept(criterion, direction, patches[source], patches[pivot])
                    plan[Matching(criterion, source, target, kept)] += 1 / (2 * len(pairs))
        return plan

    def _kept(self, criterion: Criterion, direction: int, patches: int, pivot_patches: int) -> int:
        if criterion == "feature" and self.all_feature_matches:
            return patches
        if self.num_matches is None:
            return min(patches, max(1, round(PAPER_MATCHES[direction] * pivot_patches / PAPER_MAP)))
        count = self.num_matches[direction]
        if count > patches:
            raise ValueError(
                f"num_matches asks for {count} of the {patches} patches of a view; "
                f"give at most {patches}, {ALL} for all, or leave it out for the paper's share"
            )
        return patches if count == ALL else count

    @torch.no_grad()
    def _match(
        self, views: Sequence[Encoding], embeddings: Sequence[Tensor], plan: Sequence[Matching]
    ) -> dict[Matching, Matches]:
        """Each rank matches its own images; the indices of all ranks then travel together."""
        centres = [view.centres if self.flip_grid else unflipped_centres(view) for view in views]
        distances: dict[tuple[Criterion, int, int], Tensor] = {}
        found = []
        for criterion, source, target, kept in plan:
            low, high = min(source, target), max(source, target)
            if (criterion, low, high) not in distances:
                between = feature_distances if criterion == "feature" else location_distances
                of = embeddings if criterion == "feature" else centres
                distances[criterion, low, high] = between(of[low], of[high])
            table = distances[criterion, low, high]
            found.append(nearest(table if source == low else table.mT, kept))
        everywhere = gather(torch.cat([indices for matches in found for indices in matches], dim=1))
        parts = torch.split(everywhere, [matching.kept for matching in plan for _ in Matches._fields], dim=1)
        return {matching: Matches(*parts[2 * m : 2 * m + 2]) for m, matching in enumerate(plan)}


def invariance_of_matches(
    maps: Sequence[Tensor], matches: Mapping[Matching, Matches], plan: Mapping[Matching, float]
) -> Tensor:
    """Weighted sum over searches of the mean squared difference of matched vectors; one call per pair of views."""
    pairs: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for matching, weight in plan.items():
        sides = dict(zip((matching.source, matching.target), matches[matching], strict=True))
        low, high = sorted(sides)
        pairs[low, high].append((sides[low], sides[high], _shares(maps[0], matching.kept, weight)))
    values = []
    for (low, high), parts in pairs.items():
        low_slots, high_slots, weights = zip(*parts, strict=True)
        slots = torch.cat(low_slots, 1), torch.cat(high_slots, 1)
        values.append(invariance(maps[low], maps[high], *slots, torch.cat(weights)))
    return torch.stack(values).sum()


def spread_of_matches(
    maps: Sequence[Tensor], matches: Mapping[Matching, Matches], plan: Mapping[Matching, float]
) -> Spread:
    """Weighted sum over searches of the half-and-half spread of both sides; one call per view.

    The sides that keep every patch in order are the same for all searches from a view, so they are counted together.
    """
    whole = [0.0] * len(maps)
    chosen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in maps]  # per view, slots and their weights
    for matching, weight in plan.items():
        inputs, candidates = matches[matching]
        chosen[matching.target].append((candidates, _shares(maps[0], matching.kept, weight / 2)))
        if matching.kept == maps[matching.source].shape[1]:
            whole[matching.source] += weight / 2
        else:
            chosen[matching.source].append((inputs, _shares(maps[0], matching.kept, weight / 2)))
    parts = []
    for rows, weight, sides in zip(maps, whole, chosen, strict=True):
        if weight:
            everything = torch.arange(rows.shape[1], device=rows.device).expand(len(rows), -1)
            sides.append((everything, _shares(rows, rows.shape[1], weight)))
        slots, weights = zip(*sides, strict=True)
        parts.append(spread(rows, torch.cat(slots, 1), torch.cat(weights)))
    return Spread(torch.stack([p.variance for p in parts]).sum(), torch.stack([p.covariance for p in parts]).sum())


def _shares(rows: Tensor, count: int, weight: float) -> Tensor:
    return rows.new_full((count,), weight / count)


def unflipped_centres(encoding: Encoding) -> Tensor:
    """Centres (B, P, 2) as if no crop had been mirrored: those of mirrored crops are mirrored back."""
    middle = (encoding.view.box[:, 1] + encoding.view.box[:, 3] / 2).float()[:, None]  # (B, 1)
    y, x = encoding.centres.unbind(2)
    return torch.stack([y, torch.where(encoding.view.flipped[:, None], 2 * middle - x, x)], dim=2)
