"""Shared fixtures; real images and reference numbers lie in $POLYGRAIN_SHARED, or in ../shared beside the checkout."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(os.environ.get("POLYGRAIN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """For the same bits in every order of tests: a run that is trained in a test chooses its own number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def features_are_kept_aside(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not in the cache of the person who runs the tests."""
    os.environ["POLYGRAIN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real image sets."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real images at {SHARED / 'data'}; set POLYGRAIN_SHARED to run this test")
    return SHARED / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of numbers computed with the authors' code."""
    if not (SHARED / "reference" / "golden").is_dir():
        pytest.skip(f"no reference numbers at {SHARED / 'reference'}; set POLYGRAIN_SHARED to run this test")
    return SHARED / "reference" / "golden"
