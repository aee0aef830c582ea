"""What all tests share: hypothesis' settings, and a very small vision-language model with random weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from configs.schema import ScratchModel

# Busy machines make single examples slow; nothing here is a test of speed.
settings.register_profile("caliber", deadline=None)
settings.load_profile("caliber")

_exit_code = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """For `pytest_unconfigure`."""
    session.config.stash[_exit_code] = int(exitstatus)


@pytest.hookimpl(wrapper=True)
def pytest_unconfigure(config: pytest.Config) -> Iterator[None]:
    """End here where Ray was in this process, with the result of the tests, once all else is told and closed.

    A native thread that outlives `ray.shutdown`, most likely the one that exports metrics, has called into what the
    interpreter's exit had taken down: a segmentation fault in place of the exit code, after all tests had passed.
    """
    yield
    if "ray" in sys.modules and _exit_code in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_exit_code])


TAGS = ("think", "answer", "confidence")
TEXTS = (
    "What feeling does this picture carry? Choose one of: positive, neutral, negative.",
    "<think>The face smiles.</think><answer>positive</answer><confidence>0.62</confidence>",
)
TINY = ScratchModel(
    vocabulary_size=512,
    width=64,
    layers=2,
    heads=2,  # vLLM's attention on CPUs wants heads of at least 32
    key_value_heads=1,
    mlp_width=128,
    vision_width=64,
    vision_layers=2,
    vision_heads=4,
    vision_mlp_width=128,
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Qwen2.5-VL."""
    from learner.scratch import build_scratch_model  # here: most tests do without torch

    folder = tmp_path_factory.mktemp("tiny_model")
    build_scratch_model(TINY, TEXTS, TAGS, folder, seed=0)
    return folder


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever wandb writes beside the run is written into the test's folder; the user's own settings do not count."""
    for name in ("MODE", "DISABLED", "PROJECT", "NAME", "RUN_ID", "RESUME", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "elsewhere"))
