"""The protocols by name: what each asks for, and the function that runs it, which is imported when it is."""

import importlib
from typing import Any, NamedTuple

from polygrain.evaluate.settings import FewShotSettings, KnnSettings, LinearSettings, LogisticSettings
from polygrain.evaluate.settings.detection import DetectSettings
from polygrain.evaluate.settings.finetune import FinetuneSettings
from polygrain.evaluate.settings.retrieval import CopiesSettings, CorrespondSettings, RetrieveSettings
from polygrain.evaluate.settings.segmentation import (
    SegmentFinetuneSettings,
    SegmentKnnSettings,
    SegmentLinearSettings,
)
from polygrain.evaluate.settings.unlabelled import UnlabelledSettings
from polygrain.evaluate.settings.video import TrackSettings

TRAIN, VAL = "Labelled training images: folder or shards.", "Labelled images to classify: folder or shards."
MASKED = {
    "data": "Images with masks: folder or .tar with images/ and masks/ (PNG of class ids).",
    "val?": "Images with masks to be segmented, likewise.",
    "split?": "Which names to train on and to segment: train.txt,val.txt or splits.json:NAME.",
}


class Protocol(NamedTuple):
    """One protocol, named without importing what runs it."""

    settings: type[Any]
    runs: str  # "module:function", called with model, the data by name, and settings; gives a Result
    data: dict[str, str]  # options that name data, with their help; those ending in "?" may be left out

    def function(self) -> Any:
        module, _, name = self.runs.partition(":")
        return getattr(importlib.import_module(module), name)


PROTOCOLS: dict[str, Protocol] = {
    "knn": Protocol(KnnSettings, "polygrain.evaluate.knn:evaluate_knn", {"data": TRAIN, "val": VAL}),
    "linear": Protocol(LinearSettings, "polygrain.evaluate.linear:evaluate_linear", {"data": TRAIN, "val": VAL}),
    "logistic": Protocol(
        LogisticSettings, "polygrain.evaluate.logistic:evaluate_logistic", {"data": TRAIN, "val": VAL}
    ),
    "few_shot": Protocol(FewShotSettings, "polygrain.evaluate.few_shot:evaluate_few_shot", {"data": TRAIN, "val": VAL}),
    "finetune": Protocol(
        FinetuneSettings, "polygrain.evaluate.finetune.protocol:evaluate_finetune", {"data": TRAIN, "val": VAL}
    ),
    "segment_linear": Protocol(
        SegmentLinearSettings, "polygrain.evaluate.segmentation.linear:evaluate_segment_linear", MASKED
    ),
    "segment_knn": Protocol(SegmentKnnSettings, "polygrain.evaluate.segmentation.knn:evaluate_segment_knn", MASKED),
    "segment_finetune": Protocol(
        SegmentFinetuneSettings, "polygrain.evaluate.segmentation.finetune:evaluate_segment_finetune", MASKED
    ),
    "detect": Protocol(
        DetectSettings,
        "polygrain.evaluate.detection.protocol:evaluate_detect",
        {
            "data": "Training images: folder or .tar, as file_name says, at the root or in images/.",
            "data_annotations": "What is in them: a COCO json of instances.",
            "val": "Test images, likewise.",
            "val_annotations": "What is in those.",
        },
    ),
    "unlabelled": Protocol(
        UnlabelledSettings,
        "polygrain.evaluate.unlabelled.protocol:evaluate_unlabelled",
        {"data": "Images, no labels needed: folder or shards."},
    ),
    "track": Protocol(
        TrackSettings,
        "polygrain.evaluate.video.track:evaluate_track",
        {"data": "Videos: a DAVIS folder or tar archive."},
    ),
    "retrieve": Protocol(
        RetrieveSettings,
        "polygrain.evaluate.retrieval.retrieve:evaluate_retrieve",
        {
            "data": "Images to find, with labels or a ground truth: folder or shards.",
            "val?": "Queries; without them each image of --data is one, and looks for the others of its class.",
            "ground_truth?": "Of revisited Oxford or Paris: .json, or the .pkl it is published as.",
        },
    ),
    "copies": Protocol(
        CopiesSettings,
        "polygrain.evaluate.retrieval.copies:evaluate_copies",
        {
            "data": "Images, some of which are copied: folder or shards; or a Copydays folder (original/ ...).",
            "distractors?": "More images among which originals are looked for.",
            "whiten?": "Other images, by which vectors are whitened.",
        },
    ),
    "correspond": Protocol(
        CorrespondSettings,
        "polygrain.evaluate.retrieval.correspond:evaluate_correspond",
        {
            "data": "Images, no labels needed: folder or shards.",
            "keypoints?": "JSON with pairs of images and corresponding points, instead of crops of one image.",
        },
    ),
}
