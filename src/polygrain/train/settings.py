"""What a person chooses about a run. Imports nothing heavy, so that `--help` answers at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, POSITIVE, SHARE, check_ranges


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """One pretraining run. None means: chosen for your data (see `scale`), printed with its reason.

    Args:
        data: folder of images, `.tar` shard, glob or brace list of shards, or `scenes` for the built-in set.
        out: folder to write the run to; it must be empty or absent unless resuming.
        quarantine: a list of files to leave out, as `polygrain inspect --quarantine` writes it.
        max_bad_fraction: share of undecodable images above which a run does not start, and above which it ends.
        method: which method to train; `polygrain methods` lists them.
        without: objectives of the method to leave out, such as `local_group` of Mugs.
        encoder: a ready-made small encoder or any timm ViT, ResNet or ConvNeXt.
        encoder_args: passed on to timm, for example `{"drop_path_rate": 0.1, "img_size": 64, "patch_size": 8}`.
        position: how a ViT's position codes are resized for other crop sizes: `dino` (default, as DINO and Mugs) or
            `timm`.
        start_from: weights to start from, as `timm:NAME`, an official Mugs or VICRegL file, a run or an exported file.
        allow_missing: start even where `start_from` does not fill every tensor.
        epochs: passes over the images.
        batch_size: images per optimizer step, over all devices and accumulated batches.
        scale: `auto` fits sizes, batch, learning rate, momentum and length to your data and hardware;
            `paper` keeps the values of the paper.
        seed: of weights, order and augmentation; the same seed gives the same run.
        channels: of the images; 3 is RGB, 1 gray, other numbers are taken as stored (`.npy`, TIFF).
        mean: of the pixels in [0, 1] by channel, for normalisation; by default that of ImageNet for RGB, else measured.
        std: likewise.
        devices: how many devices to train on, on each node.
        nodes: how many machines.
        accelerator: `auto` takes a GPU where there is one.
        strategy: Lightning Fabric's name of the way to train on several devices.
        precision: `auto` is bf16 on GPUs that have it, else 32.
        accumulate: batches whose gradients are added up before each optimizer step.
        checkpointing: recompute activations in the backward pass, for less memory and more time.
        compile: compile the backbone with torch.compile.
        workers: processes that decode and cut images; by default half the cores, at most 8.
        worker_timeout_seconds: without a batch from any of them, after which the run ends instead of hanging.
        timeout_seconds: for which one device waits for the others before the run ends instead of hanging.
        threads: CPU threads for the training process; by default, on a CPU, the cores that workers leave.
        log_every: steps between two lines of the log.
        checkpoint_every_minutes: minutes between two checkpoints; the start, the end and a signal always write one.
        checkpoint_every_epochs: and epochs between two.
        checkpoint_every_steps: and steps between two.
        keep: how many checkpoints to keep, besides the newest that was written while all gauges were healthy.
        keep_going: only warn when features are dead or a loss is no number (such a step is skipped); otherwise the
            run stops with exit code 3.
        probe_every_epochs: epochs between two kNN probes where labels exist; by default a tenth of the run, 0 is never.
        loggers: besides the JSON lines, log to `tensorboard`, `wandb` or `mlflow`.
        resume: continue the run in `out` from its newest sound checkpoint, or start it if there is none yet; what is
            not named again is taken from the run.
        stop_after_steps: end after so many optimizer steps though schedules run for all epochs.
    """

    data: str
    out: str
    quarantine: str | None = None
    max_bad_fraction: float = 0.01
    method: str = "mugs"
    without: tuple[str, ...] = ()
    encoder: str | None = None
    encoder_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    position: Literal["dino", "timm"] | None = None
    start_from: str | None = None
    allow_missing: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    scale: Literal["auto", "paper"] = "auto"
    seed: int = 0
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    devices: int = 1
    nodes: int = 1
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    strategy: str = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    workers: int | None = None
    worker_timeout_seconds: float = 300.0
    timeout_seconds: float = 120.0
    threads: int | None = None
    log_every: int = 10
    checkpoint_every_epochs: int | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float = 15.0
    keep: int = 2
    keep_going: bool = False
    probe_every_epochs: int | None = None
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    resume: bool = False
    stop_after_steps: int | None = None

    def __post_init__(self) -> None:
        kinds = {
            COUNT: "channels epochs batch_size accumulate devices nodes log_every keep threads "
            "checkpoint_every_epochs checkpoint_every_steps",
            NUMBER: "workers probe_every_epochs stop_after_steps",
            SHARE: "max_bad_fraction mean",
            POSITIVE: "std worker_timeout_seconds timeout_seconds",
            NOT_NEGATIVE: "seed checkpoint_every_minutes",
        }
        check_ranges(self, kinds)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} numbers; the images have {self.channels} channels")
