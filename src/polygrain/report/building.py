"""The report of one or more models on one set of images."""

import io
import os
import sys
import time as clock
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from polygrain.data.images import Images
from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from polygrain.evaluate.features import Views
from polygrain.evaluate.labelled import describe, named, preprocessing
from polygrain.evaluate.models import Model, open_model
from polygrain.evaluate.outputs import check_file
from polygrain.evaluate.profile import Labels, Profile, labels_of, profile_from, read_hierarchy
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.evaluate.unlabelled.looking import FEWEST, of_features
from polygrain.report import explorer
from polygrain.report.codes import BYTES
from polygrain.report.curves import Log, curves, read_log
from polygrain.report.gathering import Seen, Shown, draw_images, see, short_names
from polygrain.report.html import Section, explorer_page
from polygrain.report.inside import attention_section, matches_section, patch_section
from polygrain.report.profile_figure import profile_section
from polygrain.report.settings import ReportSettings
from polygrain.weights.durable import write_durably

LOG = "log.jsonl"


class Report(NamedTuple):
    """What was written."""

    path: Path
    bytes: int
    seconds: Mapping[str, float]  # by step


def write_model_report(models: Sequence[Any], data: Any, out: str | Path, settings: ReportSettings) -> Report:
    """Writes one HTML file that needs nothing else.

    Args:
        models: what `open_model` takes, each; `data`: what `open_images` takes.

    Raises:
        ValueError: when the models take images of different channels, or something handed in cannot be used.
    """
    out = Path(out)
    _check(out, settings)
    names = short_names(list(map(_called, models)))
    logs = _logs(names, models)
    watch = _Watch()
    opened = [_open(model, settings.seed) for model in models]
    channels = {model.encoder.channels for model in opened}
    if len(channels) > 1:
        raise ValueError(f"these models take images of {sorted(channels)} channels; a report is of one kind of images")
    source = open_images(data, channels.pop())
    reference = Views(source, settings.size or opened[0].image_size, settings.resize)
    watch("thumbnails")
    shown = draw_images(source, reference, settings)
    labels = _labels(source, shown, settings)
    seen = []
    for name, model in zip(names, opened, strict=True):
        watch(f"features of {name}")
        seen.append(see(name, model, shown, reference, settings, BYTES // len(opened)))
    watch("granularity profile")
    profiles = _profiles(seen, shown, labels, data, settings)
    watch("map, groups and neighbours")
    script = explorer.payload(shown, seen, settings.seed)
    watch("patches, attention, matches, curves")
    last = [*_closer(seen, settings), *_training(logs), _about(shown, seen, profiles, data, settings)]
    watch("")
    page = explorer_page(
        _title(names),
        f"{len(shown.names):,} images of {named(data)}" + (f", {shown.broken} cannot be decoded" * bool(shown.broken)),
        first=[profile_section(names, profiles) if profiles else _too_few(len(shown.names))],
        beside=explorer.sections(seen, shown.labels is not None),
        last=last,
        inspector=explorer.INSPECTOR,
        script=script,
    )
    content = page.encode("utf-8", "backslashreplace")  # names of folders may hold any byte
    write_durably(out, lambda file: file.writelines([content]))
    return Report(out, len(content), watch.seconds)


def _check(out: Path, settings: ReportSettings) -> None:
    """What can be known before anything is opened."""
    check_file(os.fspath(out))
    if settings.hierarchy is not None:
        read_hierarchy(settings.hierarchy)


def _title(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"What {names[0]} sees"
    return f"What {' and '.join(names) if len(names) == 2 else f'{len(names)} models'} see"


def _called(model: Any) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else type(model).__name__


class _Watch:
    """Says on stderr what is being done, and remembers how long it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now, self.began = "opening", clock.perf_counter()

    def __call__(self, step: str) -> None:
        ended = clock.perf_counter()
        self.seconds[self.now] = ended - self.began
        self.now, self.began = step, ended
        if step:
            print(f"polygrain report: {step}", file=sys.stderr, flush=True)


def _open(model: Any, seed: int) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the weights of an untrained encoder
        return open_model(model)


def _too_few(count: int) -> Section:
    told = f"{count} images are too few for a granularity profile; it takes {FEWEST} that can be decoded."
    return Section("Granularity profile", told, "")


def _profiles(seen: Sequence[Seen], shown: Shown, labels: Labels, data: Any, settings: ReportSettings) -> list[Profile]:
    """Of the vectors that are there already; none of too few images."""
    count = len(shown.names)
    if count < FEWEST:
        return []
    look = LookSettings(
        images=count,
        changed=min(settings.changed, count),
        neighbours=min(10, count - 1),
        **{name: getattr(settings, name) for name in ("size", "resize", "batch_size", "workers", "device", "seed")},
        readout=settings.readout,
        cache="none",
    )
    order = np.random.default_rng(settings.seed).permutation(count)
    return [
        profile_from(of_features(one.model, one.views, order, one.pooled[order], look, named(data)), labels, look)
        for one in seen
    ]


def _labels(source: Images, shown: Shown, settings: ReportSettings) -> Labels:
    """Of the images that are shown, where two or more have one.

    Raises:
        ValueError: when there is a hierarchy and nothing that it could group.
    """
    if settings.hierarchy is not None and isinstance(source, Scenes):
        raise ValueError("scenes have coarse classes of their own; leave --hierarchy out")
    if settings.hierarchy is not None and (count := len(shown.names)) < FEWEST:
        raise ValueError(f"--hierarchy is for the granularity profile, for which {count} images are too few ({FEWEST})")
    if isinstance(source, Scenes):
        of_all = {"fine": source.fine_labels(), "coarse": source.coarse_labels()}
        return {name: labels[shown.images.positions] for name, labels in of_all.items()}
    found = labels_of(shown.images, settings.hierarchy)
    return {name: labels for name, labels in found.items() if (labels >= 0).sum() > 1}


def _closer(seen: Sequence[Seen], settings: ReportSettings) -> list[Section]:
    count = len(seen[0].pooled)
    random = np.random.default_rng(settings.seed)
    chosen = sorted(random.choice(count, min(settings.closeups, count), replace=False).tolist())
    found = [patch_section(seen, chosen), attention_section(seen, chosen), matches_section(seen, chosen)]
    return [section for section in found if section is not None]


def _logs(names: Sequence[str], models: Sequence[Any]) -> dict[str, Log]:
    """Of the models that are run folders."""
    paths = {name: Path(_called(model)) / LOG for name, model in zip(names, models, strict=True)}
    logs = {name: read_log(path) for name, path in paths.items() if path.is_file()}
    return {name: log for name, log in logs.items() if log.records}


def _training(logs: Mapping[str, Log]) -> list[Section]:
    """The curves of all runs, one after another."""
    torn = "<p class=note>The last line of the log is half written, as a run that was ended leaves it.</p>"
    body = "".join(
        f"<h3 class=run>{escape(name)}</h3>{torn * log.torn}{curves(log.records).body}" for name, log in logs.items()
    )
    return [Section("Training", "Every number of a run's log against the optimizer step.", body)] if logs else []


def _about(
    shown: Shown, seen: Sequence[Seen], profiles: Sequence[Profile], data: Any, settings: ReportSettings
) -> Section:
    rows = io.StringIO()
    for m, one in enumerate(seen):
        told = describe(one.model)
        prepared = preprocessing(one.views, one.model)
        facts = [
            f"{one.pooled.shape[1]} dimensions: {IN_WORDS[settings.readout]}",
            f"resize {prepared['resize']}; crop {prepared['crop']}",
            f"weights sha256 {told['weights_sha256'][:16]}",
            f"regions {one.grid[0]} x {one.grid[1]}, {one.codes.shape[-1] + 1} bytes each",
            *(_measured(profiles[m]) if profiles else ()),
            *one.notes,
        ]
        rows.write(f"<tr><th scope=row>{escape(one.name)}</th><td>{escape('; '.join(facts))}</td></tr>")
    text = f"{len(shown.names):,} images of {named(data)}, seed {settings.seed}; {explorer.describe_groups(seen)}."
    return Section("How this was made", text, f"<table class=plain><tbody>{rows.getvalue()}</tbody></table>")


def _measured(profile: Profile) -> list[str]:
    """What decided the numbers of the profile besides the model and the preprocessing."""
    settings, knn, crops = (profile.facts[name] for name in ("settings", "knn", "crops"))
    low, high = crops["scale"]
    return [
        f"profile {profile.fingerprint}: {settings['neighbours']} neighbours; kNN with k = {knn['k']} and temperature "
        f"{knn['temperature']}; {settings['changed']} images changed, {settings['views']} crops of each over {low:g} "
        f"to {high:g} of its area in the colours of {crops['recipe']}",
    ]
