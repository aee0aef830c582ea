"""TRL's part of `benchmarks.against_trl`: runs in an environment of its own, where Caliber is not installed.

    python benchmarks/trl_side.py SETTINGS.json

Each line of standard input asks for steps, `{"way": {"attention": …, "rows_per_pass": …}, "steps": …}`, and is answered
by a line with the seconds of each and what was sampled in them. In between the process sleeps.
"""

from __future__ import annotations

import json
import os
import platform
import re
import string
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("trl", "transformers", "torch", "accelerate", "datasets")

_FORM = [re.compile(rf"<{tag}>(.*?)</{tag}>", re.DOTALL) for tag in ("think", "answer", "confidence")]
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def worth(response: str, label: str) -> float:
    """1 for a response of the form, with a confidence within (0, 1), and 1 more for the right answer.

    The same as Caliber's reward in this benchmark: preset rlvr, read as EmoCaliber's code reads.
    """
    think, answer, confidence = (pattern.search(response) for pattern in _FORM)
    if think is None or answer is None or confidence is None:
        return 0.0
    try:
        stated = float(confidence[1].strip())
    except ValueError:
        return 0.0
    if not 0 < stated < 1:
        return 0.0
    return 1.0 + float(answer[1].translate(_WITHOUT_PUNCTUATION).lower().split() == [label.lower()])


class Side:
    """A trainer for the way that was asked for last."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._way: dict[str, Any] | None = None
        self._trainer: Any = None
        self._steps: list[tuple[float, float]] = []  # when each began and ended

    def answer(self, way: dict[str, Any], steps: int) -> dict[str, Any]:
        """Take so many steps; seconds of each, and means over their responses."""
        if way != self._way:
            self._trainer = None  # frees the other's model
            self._trainer, self._way = self._made(way), way
        self._steps.clear()
        self._trainer.args.max_steps = steps
        self._trainer.train()
        logged = [line for line in self._trainer.state.log_history if "completions/mean_length" in line]
        return {
            "seconds": [ended - began for began, ended in self._steps],
            "response_tokens": _mean([line["completions/mean_length"] for line in logged]),
            "reward": _mean([line["reward"] for line in logged]),
        }

    def _made(self, way: dict[str, Any]) -> Any:
        # Here, so that Caliber's tests can import `worth`.
        import torch
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer

        given, steps = self._settings, self._steps

        class Watch(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                steps.append((time.perf_counter(), 0.0))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                steps[-1] = (steps[-1][0], time.perf_counter())

        def reward(completions: list[str], label: list[str], **_: Any) -> list[float]:
            return [worth(text, wanted) for text, wanted in zip(completions, label, strict=True)]

        torch.set_num_threads(given["threads"])
        tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
        lengths = {len(ids) for ids in tokenizer([row["prompt"] for row in given["prompts"]])["input_ids"]}
        if lengths != {given["prompt_tokens"]}:
            raise ValueError(f"prompts of {sorted(lengths)} tokens, expected {given['prompt_tokens']} as for Caliber")
        samples = given["prompts_per_step"] * given["samples_per_prompt"]
        arguments = GRPOConfig(
            output_dir=given["folder"],
            use_cpu=True,
            bf16=False,  # the weights are bf16 already: autocast would only add to the work
            gradient_checkpointing=False,
            per_device_train_batch_size=way["rows_per_pass"],
            gradient_accumulation_steps=samples // way["rows_per_pass"],
            num_generations=given["samples_per_prompt"],
            max_completion_length=given["response_tokens"],
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=0.0,
            num_iterations=1,
            learning_rate=given["learning_rate"],
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=given["seed"],
        )
        return GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                given["model"], dtype=torch.bfloat16, attn_implementation=way["attention"]
            ),
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_list(given["prompts"]),
            processing_class=tokenizer,
            callbacks=[Watch()],
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    """Answer until standard input ends."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes where errors go
    side = Side(settings)
    versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(side.answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
