"""Video object segmentation by label propagation (DINO, arXiv:2104.14294), scored as the official evaluator does."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from polygrain.data.davis import Davis, Files, Mask, Video, check_size, png, read_mask
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.evaluate.features import evaluating
from polygrain.evaluate.labelled import constant, describe
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.outputs import prepare_folder
from polygrain.evaluate.result import Result, versions
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.video import TrackSettings
from polygrain.evaluate.video.davis import TOLERANCE, VOID, ObjectScores, score_video, summarise
from polygrain.evaluate.video.propagation import Propagation, first_labels, follow, frame_size, prepared, to_mask

PREDICTIONS = "predictions:"
DINO_STD = (0.228, 0.224, 0.225)  # so the official script has it, for videos alone
MULTIPLE = 64  # of the longer side of frames

Predict = Callable[[Video], Iterator[Mask]]  # the masks of all frames after the first


def evaluate_track(model: Any, data: str | os.PathLike[str], settings: TrackSettings | None = None) -> Result:
    """Follows the objects of the first frame through each video, and scores the masks.

    Args:
        model: what `open_model` takes, or "predictions:FOLDER" for masks that are there already, FOLDER/NAME/00000.png.
        data: a DAVIS folder or tar archive, see `Davis`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or TrackSettings()
    davis = Davis(data, settings.split, settings.sequences)
    notes: list[str] = []
    if isinstance(model, str) and model.startswith(PREDICTIONS):
        if settings.out is not None:
            raise ValueError("--out is for masks that a model predicts; these lie in a folder already")
        files = Files(Path(model.removeprefix(PREDICTIONS)))
        predict: Predict = lambda video: given(files, video)  # noqa: E731
        protocol: dict[str, Any] = {"masks": "predicted elsewhere"}
        described: dict[str, Any] = {"name": model, "checkpoint_sha256": None}
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
            opened = open_model(model)
        if settings.out is not None:
            prepare_folder(settings.out)
        predict = tracker(opened, davis, settings, notes)
        protocol = _protocol(opened, settings)
        described = describe(opened._replace(normalisation=_normalisation(opened)))
    begun, digest = time.monotonic(), hashlib.blake2b(digest_size=16)
    objects: dict[str, ObjectScores] = {}
    quiet = not sys.stderr.isatty()
    for video in tqdm(davis.videos, desc="videos", unit="video", disable=quiet, leave=False):
        truth = davis.masks(video)
        masks = _stacked([truth[0], *predict(video)], video)
        digest.update(masks[1:-1].tobytes())
        if settings.out is not None:
            _write(Path(settings.out), video, masks)
        found = score_video(masks, truth, video.name)
        objects |= {f"{video.name} {i}": scores for i, scores in enumerate(found, start=1)}
    both = {name: summarise([scores]) for name, scores in objects.items()}
    means = Sample(np.array([scores["J&F"] for scores in both.values()]))
    return Result(
        protocol="track",
        description=_description(settings, protocol),
        scores={"all": summarise([*objects.values()]) | means.estimate(seed=settings.seed).scores("J&F"), **both},
        facts={
            "data": {"videos": len(davis.videos), "objects": len(objects), "digest": davis.digest()},
            "split": settings.split,
            "scores": f"without first and last frame, boundaries within {TOLERANCE} of the diagonal, mean over objects",
            **protocol,
        },
        model=described,
        details={
            "data": os.fspath(data),
            "masks_digest": digest.hexdigest(),
            "seconds": round(time.monotonic() - begun, 1),
            "frames": {name: {"J": s.region.tolist(), "F": s.boundary.tolist()} for name, s in objects.items()},
            "versions": versions(),
        },
        notes=tuple(dict.fromkeys(notes)),
        about=f"{described['name']} on {data}: {len(objects)} objects in {len(davis.videos)} videos",
        items={"all": means},
    )


def given(files: Files, video: Video) -> Iterator[Mask]:
    """Masks that were predicted elsewhere; that of the last frame does not count and may be missing.

    Raises:
        ValueError: when another one is missing.
    """
    names = [f"{video.name}/{frame}.png" for frame in video.frames[1:-1]]
    if missing := [name for name in names if not files.has(name)]:
        told = f"{len(missing)} of {len(names)} masks of {video.name!r}"
        raise ValueError(f"{str(files.root)!r} lacks {told}, the first is {missing[0]}")
    for name in names:
        mask = read_mask(files, name)
        yield mask
    yield mask


def tracker(model: Model, davis: Davis, settings: TrackSettings, notes: list[str]) -> Predict:
    """What predicts the masks of a video by following the patches of an encoder; adds to `notes` what it meets.

    Raises:
        ValueError: when the encoder cannot take frames of that size.
    """
    encoder, device, size = model.encoder, pick_device(settings.device), settings.size or 480
    how = Propagation(settings.context, settings.neighbours, settings.window, settings.temperature)
    encoder.check_size(size)
    encoder.to(device)
    normalisation = _normalisation(model)
    multiple = _multiple(model)

    def features(video: Video) -> Iterator[Tensor]:
        """(D, h, w) of each frame."""
        shape: torch.Size | None = None
        for i, name in enumerate(video.frames):
            frame = davis.frame(video, i)
            shape = shape or frame.shape
            check_size(f"frame {video.name}/{name}.jpg", frame.shape[1:], "the first one", shape[1:])
            small = frame_size(frame, size, multiple)
            with evaluating(encoder), torch.no_grad():
                seen = encoder.features(prepared(frame, small, *normalisation).to(device))
            if not torch.isfinite(seen.patches).all():
                raise ValueError(f"the encoder's features of {video.name}/{name}.jpg are not finite")
            if i == 0 and constant(seen.patches[0]):
                notes.append("the features of all patches of a frame are the same: labels cannot follow anything")
            yield seen.patches[0].T.reshape(-1, *seen.grid).float()

    def predict(video: Video) -> Iterator[Mask]:
        frame, mask = davis.frame(video, 0), davis.mask(video, 0)
        check_size(f"the first mask of {video.name}", mask.shape, "its frame", frame.shape[1:])
        small = frame_size(frame, size, multiple)
        first = first_labels(mask, (small[0] // encoder.stride, small[1] // encoder.stride), VOID).to(device)
        if lost := [str(i) for i in range(1, len(first)) if not first[i].any()]:
            notes.append(f"{video.name}: object {', '.join(lost)} is lost at the size of patches")
        for labels in follow(features(video), first, how):
            yield to_mask(labels, encoder.stride, (mask.shape[0], mask.shape[1]))

    return predict


def _normalisation(model: Model) -> Normalisation:
    return model.normalisation._replace(std=DINO_STD) if model.normalisation == IMAGENET else model.normalisation


def _multiple(model: Model) -> int:
    """Of the longer side of frames: that of the script, unless patches do not divide it."""
    stride = model.encoder.stride
    return MULTIPLE if MULTIPLE % stride == 0 else stride


def _protocol(model: Model, settings: TrackSettings) -> dict[str, Any]:
    longer = f"longer one down to a multiple of {_multiple(model)}"
    return {
        "preprocessing": {
            "resize": f"shorter side to {settings.size or 480} px, {longer}, bilinear",
            "normalised": "as the model was trained; ImageNet's deviations as DINO's script has them",
        },
        "features": "patches of the last block after the final norm, unit length",
        "settings": settings.of_protocol(),
    }


def _description(settings: TrackSettings, protocol: dict[str, Any]) -> str:
    scored = "J and F of DAVIS-2017 (semi-supervised), mean over objects; 95 % interval from resampled objects"
    if "settings" not in protocol:
        return f"Masks predicted elsewhere; {scored}"
    size = settings.size or 480
    cheap = "" if size == 480 else f" (frames of {size} px, cheaper than the protocol's 480)"
    return (
        f"Label propagation (DINO){cheap}: first frame and {settings.context} previous ones, {settings.neighbours} "
        f"nearest patches within {settings.window} rows and columns, exp(cosine / {settings.temperature}); {scored}"
    )


def _write(folder: Path, video: Video, masks: NDArray[np.uint8]) -> None:
    (folder / video.name).mkdir(parents=True, exist_ok=True)
    for frame, mask in zip(video.frames, masks, strict=True):
        (folder / video.name / f"{frame}.png").write_bytes(png(mask))


def _stacked(masks: list[Mask], video: Video) -> NDArray[np.uint8]:
    """(T, H, W); the first is the true one."""
    for frame, mask in zip(video.frames, masks, strict=True):
        check_size(f"predicted mask {video.name}/{frame}.png", mask.shape, "its ground truth", masks[0].shape)
    return np.stack(masks)
