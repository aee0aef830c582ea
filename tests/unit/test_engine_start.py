"""What a start of the engine raises: the engine around a fake of vLLM's AsyncLLM, and vLLM's own refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from configs.schema import Engine, Precision
from rollout import vllm_engine
from rollout.chat import ImageLimits
from rollout.engine import EngineDied
from rollout.vllm_engine import VllmEngine

INITIALIZATION = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


class FakeLlm:
    """Comes up, and answers a call with what `failures` has for it."""

    def __init__(self, **failures: Exception) -> None:
        self._failures = failures
        self.errored = False
        self.dead_error = EngineDeadError()
        self.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(world_size=1))

    async def collective_rpc(self, method: str, args: tuple[object, ...]) -> None:
        if method in self._failures:
            self.errored = True
            await asyncio.Event().wait()  # as vLLM's, whose answer never comes

    async def update_weight_version(self, version: str) -> None:
        self._fail("update_weight_version")

    async def get_supported_tasks(self) -> None:
        self._fail("get_supported_tasks")

    async def generate(self, *_: object) -> AsyncIterator[None]:
        self._fail("generate")
        yield

    def _fail(self, call: str) -> None:
        if call in self._failures:
            raise self._failures[call]


def start(model: Path, **settings: Any) -> VllmEngine:
    engine = Engine(**{"precision": Precision.FP32, "tokens_per_sequence": 64, "kv_cache_gib": 0.25, **settings})
    return asyncio.run(VllmEngine.start(str(model), engine, ImageLimits()))


def comes_up_as(monkeypatch: pytest.MonkeyPatch, llm: FakeLlm | Exception) -> None:
    def made(*_: object, **__: object) -> FakeLlm:
        if isinstance(llm, Exception):
            raise llm
        return llm

    monkeypatch.setattr(AsyncLLM, "from_engine_args", made)


@pytest.mark.parametrize("error", [INITIALIZATION, TimeoutError("Timed out waiting for engine core processes")])
def test_an_engine_whose_process_does_not_come_up_is_dead(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    comes_up_as(monkeypatch, error)

    with pytest.raises(EngineDied, match=r"vLLM's engine process is gone .*: (Engine core|Timed out)") as raised:
        start(tiny_model)

    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("end_with", EngineDeadError()),
        ("update_weight_version", EngineDeadError()),
        ("get_supported_tasks", EngineDeadError()),
        ("generate", EngineDeadError()),
        ("generate", EngineGenerateError()),
    ],
)
def test_an_engine_whose_process_ends_before_it_is_warm_is_dead(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    monkeypatch.setattr(vllm_engine, "_SECONDS_BETWEEN_LOOKS", 0.01)
    comes_up_as(monkeypatch, FakeLlm(**{call: error}))

    with pytest.raises(EngineDied) as raised:
        start(tiny_model)

    assert type(raised.value.__cause__) is type(error)


def test_an_engine_that_comes_up_is_an_engine(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comes_up_as(monkeypatch, FakeLlm())

    assert start(tiny_model).processes == 1


def test_settings_that_vllm_refuses_are_no_death_which_another_attempt_might_mend(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        start(tiny_model, sequences_at_once=64, tokens_per_batch=32, threads_per_worker=1)
