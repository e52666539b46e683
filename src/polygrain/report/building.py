"""The report of one or more models on one set of images."""

import io
import sys
import time as clock
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from polygrain.data.images import Images
from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from polygrain.evaluate.features import Views
from polygrain.evaluate.labelled import describe, named, preprocessing
from polygrain.evaluate.models import Model, open_model
from polygrain.evaluate.profile import granularity_profile, labels_of
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.report import explorer
from polygrain.report.codes import BYTES
from polygrain.report.curves import curves, read_log
from polygrain.report.gathering import Seen, Shown, draw_images, see, short_names
from polygrain.report.html import Section, explorer_page
from polygrain.report.inside import attention_section, matches_section, patch_section
from polygrain.report.profile_figure import profile_section
from polygrain.report.settings import ReportSettings
from polygrain.weights.durable import write_durably

FEWEST = 20  # images of a granularity profile
MATCHED = 2  # images whose crops are matched
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
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write {out.name} into")
    watch = _Watch()
    opened = [_open(model, settings.seed) for model in models]
    channels = {model.encoder.channels for model in opened}
    if len(channels) > 1:
        raise ValueError(f"these models take images of {sorted(channels)} channels; a report is of one kind of images")
    source = open_images(data, channels.pop())
    reference = Views(source, settings.size or opened[0].image_size, settings.resize)
    watch("thumbnails")
    shown = draw_images(source, reference, settings)
    names = short_names([model if isinstance(model, str) else type(model).__name__ for model in models])
    seen = []
    for name, model in zip(names, opened, strict=True):
        watch(f"features of {name}")
        seen.append(see(name, model, shown, reference, settings, BYTES // len(opened)))
    watch("granularity profile")
    first = _profile(names, models, shown, source, settings)
    watch("map, groups and neighbours")
    script = explorer.payload(shown, seen, settings.seed)
    watch("patches, attention, matches, curves")
    last = [*_closer(seen, settings), *_runs(names, models), _about(shown, seen, data, settings)]
    watch("")
    page = explorer_page(
        f"What {' and '.join(names) if len(names) < 3 else f'{len(names)} models'} see",
        f"{len(shown.names):,} images of {named(data)}" + (f", {shown.broken} cannot be decoded" * bool(shown.broken)),
        first=first,
        beside=explorer.sections(seen, shown.labels is not None),
        last=last,
        inspector=explorer.INSPECTOR,
        script=script,
    )
    content = page.encode()
    write_durably(out, lambda file: file.writelines([content]))
    return Report(out, len(content), watch.seconds)


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


def _profile(
    names: Sequence[str], models: Sequence[Any], shown: Shown, source: Images, settings: ReportSettings
) -> list[Section]:
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
    labels = _labels(source, shown, settings)
    profiles = [granularity_profile(model, shown.images, labels, look) for model in models]
    return [profile_section(names, profiles)]


def _labels(source: Images, shown: Shown, settings: ReportSettings) -> Mapping[str, NDArray[np.int64]]:
    if isinstance(source, Scenes):
        of_all = {"fine": source.fine_labels(), "coarse": source.coarse_labels()}
        return {name: labels[shown.images.positions] for name, labels in of_all.items()}
    return labels_of(shown.images, settings.hierarchy)


def _closer(seen: Sequence[Seen], settings: ReportSettings) -> list[Section]:
    count = len(seen[0].pooled)
    random = np.random.default_rng(settings.seed)
    chosen = sorted(random.choice(count, min(settings.closeups, count), replace=False).tolist())
    found = [patch_section(seen, chosen), attention_section(seen, chosen), matches_section(seen, chosen[:MATCHED])]
    return [section for section in found if section is not None]


def _runs(names: Sequence[str], models: Sequence[Any]) -> list[Section]:
    """Curves of the models that are run folders."""
    runs = [(name, Path(model) / LOG) for name, model in zip(names, models, strict=True) if isinstance(model, str)]
    about = "Every number of the run's log against the optimizer step."
    return [
        curves(records, title=f"Training of {name}", about=about)
        for name, log in runs
        if log.is_file() and (records := read_log(log))
    ]


def _about(shown: Shown, seen: Sequence[Seen], data: Any, settings: ReportSettings) -> Section:
    rows = io.StringIO()
    for one in seen:
        told = describe(one.model)
        prepared = preprocessing(one.views, one.model)
        facts = [
            f"{one.pooled.shape[1]} dimensions: {IN_WORDS[settings.readout]}",
            f"resize {prepared['resize']}; crop {prepared['crop']}",
            f"weights sha256 {told['weights_sha256'][:16]}",
            f"regions {one.grid[0]} x {one.grid[1]}, {one.codes.shape[-1]} bytes each",
            *one.notes,
        ]
        rows.write(f"<tr><th scope=row>{escape(one.name)}</th><td>{escape('; '.join(facts))}</td></tr>")
    text = f"{len(shown.names):,} images of {named(data)}, seed {settings.seed}; {explorer.describe_groups(seen)}."
    return Section("How this was made", text, f"<table class=plain><tbody>{rows.getvalue()}</tbody></table>")
