"""The table and the figure of `benchmarks.comparison`, from the files of its runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Runs = dict[str, dict[int, dict[str, Any]]]  # by name and seed

MEASURES = {
    "knn fine": ("kNN, fine", "top1"),
    "knn coarse": ("kNN, coarse", "top1"),
    "linear fine": ("linear, fine", "top1"),
    "segmentation": ("segmentation, mIoU", "miou"),
}
INSTANCE, LOCAL_GROUP, GROUP, REGION = "#2a78d6", "#c2447f", "#e0812a", "#5a9e4b"
SEVERAL, OTHER = "#8a56c2", "#777777"
COLOURS = {
    **dict.fromkeys(("simclr", "infomin", "mocov2", "mocov3", "simsiam", "byol", "vicreg", "barlow_twins"), INSTANCE),
    **dict.fromkeys(("swav", "deepclusterv2", "pcl", "dino"), GROUP),
    "mae": REGION,
    "nnclr": LOCAL_GROUP,
    **dict.fromkeys(("mugs", "vicregl", "simclr_l", "ibot", "mst"), SEVERAL),
}
LEGEND = {
    "one granularity: instance": INSTANCE,
    "local group": LOCAL_GROUP,
    "group": GROUP,
    "region": REGION,
    "several granularities": SEVERAL,
    "not self-supervised": OTHER,
}


def read_runs(folder: Path) -> Runs:
    runs: Runs = {}
    for file in sorted(folder.glob("*-*.json")):
        found = json.loads(file.read_text())
        runs.setdefault(found["name"], {})[found["seed"]] = found
    return runs


def write_report(folder: Path, groups: Mapping[str, Sequence[str]]) -> str:
    """Writes table.md and comparison.png beside the runs; returns the table."""
    runs = read_runs(folder)
    ordered = {group: best_first([name for name in names if name in runs], runs) for group, names in groups.items()}
    text = table([name for names in ordered.values() for name in names], runs)
    (folder / "table.md").write_text(text)
    draw(ordered, runs).savefig(folder / "comparison.png", dpi=150)
    return text


def rates_table(folder: Path) -> str:
    """Mean of kNN and linear top-1 of every method at every rate that was tried, the best in bold."""
    found: dict[str, dict[float, float]] = {}
    for name, seeds in read_runs(folder).items():
        method, _, rate = name.partition(" at ")
        found.setdefault(method, {})[float(rate)] = sum(mean(seeds, m) for m in ("knn fine", "linear fine")) / 2
    rates = sorted({rate for tried in found.values() for rate in tried}, reverse=True)
    lines = ["| | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---|" + "---|" * len(rates)]
    for method, tried in sorted(found.items()):
        cells = [f"{100 * tried[rate]:.1f}" if rate in tried else "" for rate in rates]
        best = rates.index(max(tried, key=lambda rate: tried[rate]))
        cells[best] = f"**{cells[best]}**"
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def best_first(names: Sequence[str], runs: Runs) -> list[str]:
    return sorted(names, key=lambda name: -mean(runs[name], "knn fine"))


def mean(seeds: Mapping[int, Mapping[str, Any]], measure: str) -> float:
    values = [run["scores"][measure][MEASURES[measure][1]] for run in seeds.values() if measure in run["scores"]]
    return sum(values) / len(values) if values else float("nan")


def table(names: Sequence[str], runs: Runs) -> str:
    """One row per run."""
    lines = [
        "| | seed | " + " | ".join(title for title, _ in MEASURES.values()) + " | seconds | images/s | alarm |",
        "|---|---|" + "---|" * len(MEASURES) + "---|---|---|",
    ]
    for name in names:
        for seed, run in sorted(runs[name].items()):
            cells = [name if seed == min(runs[name]) else "", str(seed)]
            for measure, (_, key) in MEASURES.items():
                scores = run["scores"].get(measure)
                cells.append("" if scores is None else share(scores, key))
            if "seconds" in run:
                silent = "silent" if run["alarm"] == "silent" else "**rang**"
                cells += [f"{run['seconds']:.0f}", f"{run['images_per_second']:.0f}", silent]
            else:
                cells += [""] * 3
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def share(scores: Mapping[str, float], key: str) -> str:
    value, low, high = (100 * scores[name] for name in (key, f"{key}_low", f"{key}_high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def draw(groups: Mapping[str, Sequence[str]], runs: Runs) -> Figure:
    """A dot for the mean over seeds, a bar for the 95 % interval of the first seed, small marks for each seed."""
    names = [name for group, members in groups.items() if group != "baselines" for name in members]
    heights: dict[str, float] = {}
    y = 0.0
    for group, members in groups.items():
        if group != "baselines" and members:
            for name in members:
                heights[name] = y
                y += 1
            y += 0.8
    figure = Figure(figsize=(11, 1.5 + 0.235 * y), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for panel, (measure, (title, key)) in zip(panels, MEASURES.items(), strict=True):
        for name in names:
            scored = {seed: run["scores"][measure] for seed, run in runs[name].items() if measure in run["scores"]}
            if not scored:
                continue
            colour = COLOURS.get(name.split()[0], OTHER)
            first = scored[min(scored)]
            at = heights[name]
            panel.plot(
                [100 * first[f"{key}_low"], 100 * first[f"{key}_high"]], [at, at], color=colour, lw=2, alpha=0.35
            )
            panel.plot([100 * one[key] for one in scored.values()], [at] * len(scored), "|", color=colour, ms=7)
            panel.plot(100 * mean(runs[name], measure), at, "o", color=colour, ms=5.5)
        for name, style in (("untrained", "--"), ("raw pixels", ":")):
            if name in runs and measure in runs[name][min(runs[name])]["scores"]:
                panel.axvline(100 * mean(runs[name], measure), color="#555555", ls=style, lw=1, label=name, zorder=0)
        panel.set_title(title, fontsize=10, loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panel.xaxis.set_major_formatter("{x:g} %")
        panel.grid(axis="x", color="#e4e4e4", lw=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(length=0, labelsize=8.5)
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(list(heights.values()), list(heights))
    panels[0].invert_yaxis()
    marks = [panels[0].plot([], [], "o", color=colour, ms=5.5, label=label)[0] for label, colour in LEGEND.items()]
    lines = panels[0].get_legend_handles_labels()[0][:2]
    figure.legend(handles=[*marks, *lines], loc="outside lower center", ncols=8, frameon=False, fontsize=8.5)
    return figure
