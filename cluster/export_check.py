"""Whether an export says what its model says, where nobody knows this project: in transformers alone and in vLLM alone.

Each library has a process of its own, in a folder of its own, in which importing anything of ours fails, and runs a
plain script there. The model itself is asked by the learner's own code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rollout
from configs.schema import Engine, Lora
from learner.adapter_files import Adapter
from learner.next_token import Said
from rollout.chat import ChatFormat
from rollout.prompts import Prompt
from rollout.vllm_adapters import adapter_arguments
from rollout.vllm_settings import engine_environment

OURS = ("cluster", "configs", "learner", "rewards", "rollout")
TRANSFORMERS_TOLERANCE = 1e-4  # of a logit in fp32: the same code on the same numbers, or their sum in another order
VLLM_TOLERANCE = 1e-3  # of a log-probability in fp32, nats: two implementations of one model

_SCRIPTS = Path(rollout.__file__).parent
# A name that is None in sys.modules cannot be imported, though the package be installed.
_ALONE = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({OURS!r})); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
_SECONDS = 3600.0  # for loading a large model from slow storage
_LINES_SHOWN = 15  # of what a process said before it failed


class ExportDiffers(ValueError):
    """An export that a library does not load, or that says something else than its model."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a library made of an export."""

    library: str
    version: str
    differences: Mapping[str, float]  # by the kind of prompt: the largest
    of: str  # what they are of
    tolerance: float

    def __str__(self) -> str:
        """In a line."""
        found = ", ".join(f"{kind} {difference:.1e}" for kind, difference in self.differences.items())
        return f"{self.library} {self.version}: largest difference of {self.of}: {found} ({self.tolerance:g} allowed)"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A prompt, its kind (text, picture), and what the model itself says of it."""

    kind: str
    prompt: Prompt
    expected: Said


def check_export(
    folder: Path, kind: str, chat: ChatFormat, questions: Sequence[Question], engine: Engine, adapter: Adapter | None
) -> list[Checked]:
    """Ask both libraries about `folder`, a model or the `adapter`; `kind` is the name of transformers' class for it.

    Raises ExportDiffers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        conversations = [_conversation(chat, question, Path(scratch)) for question in questions]
        asked: dict[str, Any] = {"model": str(folder), "kind": kind, "conversations": conversations}
        on_cpu = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}  # as the model itself was asked
        by_transformers = _transformers(questions, _ask("transformers", asked, Path(scratch), on_cpu))
        with engine_environment(engine):
            environment = dict(os.environ)
        asked |= {"settings": _settings(folder, chat, questions, engine, adapter)}
        asked["adapter"] = None if adapter is None else str(folder)
        return [by_transformers, _vllm(questions, _ask("vllm", asked, Path(scratch), environment))]


def _settings(
    folder: Path, chat: ChatFormat, questions: Sequence[Question], engine: Engine, adapter: Adapter | None
) -> dict[str, Any]:
    """Arguments of vLLM's `LLM`, none of which is needed to use the export but for a small machine's sake."""
    settings: dict[str, Any] = {
        "model": str(folder) if adapter is None else adapter.base,
        "dtype": "float32",
        "max_model_len": engine.tokens_per_sequence,
        "max_num_seqs": len(questions),
        "tensor_parallel_size": engine.tensor_parallel,
        "gpu_memory_utilization": engine.memory_share,
        "enforce_eager": True,
    }
    if chat.takes_images:
        most = max(len(question.prompt.images) for question in questions)
        settings |= {"limit_mm_per_prompt": {"image": most, "video": 0}, "skip_mm_profiling": True}
    if adapter is not None:
        settings |= adapter_arguments(Lora(rank=adapter.rank, targets=adapter.targets))
        settings["tokenizer"] = str(folder)
        if chat.processor_options:  # which vLLM takes from the model's folder
            settings["mm_processor_kwargs"] = dict(chat.processor_options)
    return settings


def _conversation(chat: ChatFormat, question: Question, scratch: Path) -> list[dict[str, Any]]:
    """As chat templates take it, with the pictures as the learner saw them: upright, on white."""
    turns, images = chat.conversation(question.prompt.messages), chat.load_images(question.prompt)
    parts = [part for turn in turns for part in turn["content"] if isinstance(part, dict) and part["type"] == "image"]
    for number, (part, image) in enumerate(zip(parts, images, strict=True)):
        part["path"] = str(scratch / f"{question.kind}-{number}.png")
        image.save(part["path"])
    return turns


def _ask(library: str, asked: Mapping[str, Any], scratch: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a library's script on what is asked; returns its version and its answers."""
    files = scratch / f"{library}-asked.json", scratch / f"{library}-answers.json"
    files[0].write_text(json.dumps(asked), encoding="utf-8")
    script = _SCRIPTS / f"plain_{library}.py"
    command = [sys.executable, "-I", "-c", _ALONE, str(script), *map(str, files)]
    try:
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportDiffers(f"{library} did not load it within {_SECONDS:g} s") from error
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-_LINES_SHOWN:])
        raise ExportDiffers(f"{library} does not load it, exit code {done.returncode}:\n{said}")
    answered: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
    return answered


def _transformers(questions: Sequence[Question], answered: Mapping[str, Any]) -> Checked:
    differences = {}
    for question, answer in zip(questions, answered["answers"], strict=True):
        _refuse_other_tokens("transformers", question, answer["token_ids"])
        differences[question.kind] = _largest(answer["logits"], question.expected.logits)
    return _within(Checked("transformers", answered["version"], differences, "a logit", TRANSFORMERS_TOLERANCE))


def _vllm(questions: Sequence[Question], answered: Mapping[str, Any]) -> Checked:
    differences = {}
    for question, answer in zip(questions, answered["answers"], strict=True):
        _refuse_other_tokens("vllm", question, answer["token_ids"])
        likeliest = answer["likeliest"]
        after = question.expected.logits.log_softmax(0)[[int(token) for token in likeliest]]
        expected = torch.cat([question.expected.prompt_logprobs, after])
        differences[question.kind] = _largest([*answer["prompt_logprobs"], *likeliest.values()], expected)
    return _within(Checked("vLLM", answered["version"], differences, "a log-probability", VLLM_TOLERANCE))


def _largest(found: Sequence[float], expected: torch.Tensor) -> float:
    """The largest difference; not a number where one of them is none."""
    return float((torch.tensor(found) - expected).abs().max())


def _refuse_other_tokens(library: str, question: Question, found: Sequence[int]) -> None:
    expected = question.expected.token_ids
    if list(found) != expected:
        raise ExportDiffers(
            f"{library} reads the {question.kind} prompt as other tokens than the model was trained on: {len(found)} "
            f"of them, expected {len(expected)}"
        )


def _within(checked: Checked) -> Checked:
    # "not <=" and not ">": what is not a number is refused.
    if any(not difference <= checked.tolerance for difference in checked.differences.values()):
        raise ExportDiffers(f"it says something else than its model. {checked}")
    return checked
