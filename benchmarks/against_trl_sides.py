"""The two sides of `benchmarks.against_trl`: each takes some steps when it is its turn, and nothing runs in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.against_trl_setting import PROMPT_TOKENS, WORDS, Setting
from cluster.allocator import allocator_environment

ROOT = Path(__file__).parents[1]
PROMPTS_PER_STEP, SAMPLES_PER_PROMPT, RESPONSE_TOKENS = 8, 8, 48
SAMPLES = PROMPTS_PER_STEP * SAMPLES_PER_PROMPT
LEARNING_RATE = 1e-6
TRL = "TRL"
WARM_UP_STEPS = 2  # the first has nothing to overlap with
_LINES_SHOWN = 30  # of what a side that failed said last

# The words recipe's stage 3 but for these.
OVERRIDES: Mapping[str, object] = {
    "data.words": "null",  # they are built already
    "rl.prompts_per_step": PROMPTS_PER_STEP,
    "rl.samples_per_prompt": SAMPLES_PER_PROMPT,
    "rl.response_tokens": RESPONSE_TOKENS,
    "rl.groups_per_worker": "null",
    "rl.kl_weight": 0,  # no reference model: TRL's beta is 0
    "rl.optimizer": json.dumps({"learning_rate": LEARNING_RATE, "warmup_steps": 0, "final_fraction": 1}),
    "rl.checkpoint_every_steps": 1_000_000,
    "engine.tokens_per_sequence": PROMPT_TOKENS + RESPONSE_TOKENS,
    # A step's rows fall into micro-batches of one size: 4 of 16 samples, or 2 of 4 groups.
    "learner.tokens_per_micro_batch": 16 * (PROMPT_TOKENS + RESPONSE_TOKENS),
    # GRPO's advantages of a reward for form and answer; the form is read from responses that go on behind it.
    "rewards": json.dumps(
        {
            "preset": "rlvr",
            "reading": "emocaliber",
            "reference": "label",
            "divide_by_std": True,
            "confidence_gradient": "sampled",
            "confidence_token_weight": 1,
        }
    ),
    "response.reasoning_elements": "[]",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """Steps that a side took in a row, warmed up."""

    side: str
    seconds: Sequence[float]  # of each step
    response_tokens: float  # the mean
    reward: float  # the mean

    @property
    def rate(self) -> float:
        """Samples a second."""
        return SAMPLES * len(self.seconds) / sum(self.seconds)


@dataclass(frozen=True, slots=True)
class Way:
    """What may be chosen of how TRL does it."""

    attention: str
    rows_per_pass: int  # per_device_train_batch_size; gradients are accumulated up to a step's samples

    @classmethod
    def read(cls, text: str) -> Way:
        """From `sdpa:16`."""
        attention, _, rows = text.partition(":")
        return cls(attention, int(rows))

    def __str__(self) -> str:
        return f"{self.attention}, {self.rows_per_pass} rows a pass"


def caliber_turn(setting: Setting, side: str, *, shared: bool, steps: int, overrides: Sequence[str]) -> Turn:
    """`caliber rl` from its start to its end; the steps in which engine and learner both have work count.

    During the last step there is nothing left to sample, so one more is taken than counts.
    """
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as own:  # short: Ray's sockets lie in it
        run = Path(own) / "run"
        (run / "stage2").mkdir(parents=True)
        (run / "stage2" / "model").symlink_to(setting.model.absolute())
        settings = {
            **OVERRIDES,
            "output": run,
            "data.root": setting.data,
            "rl.steps": WARM_UP_STEPS + steps + 1,
            "learner.share_prompts": json.dumps(shared),
        }
        given = [f"{name}={value}" for name, value in settings.items()]
        said = Path(own) / "said"
        with said.open("w", encoding="utf-8") as file:
            ended = subprocess.run(
                [sys.executable, "-m", "cluster", "rl", str(WORDS), *given, *overrides],
                cwd=ROOT,
                env={**_environment("RAY_ADDRESS"), "RAY_TMPDIR": own},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode != 0:
            raise RuntimeError(f"caliber rl ended with {ended.returncode}:\n{_tail(said)}")
        lines = (run / "stage3" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return turn_of(side, lines, steps)


def turn_of(side: str, lines: Sequence[str], steps: int) -> Turn:
    """The turn that a log of stage 3 tells of: the steps after the warm-up, all but the last."""
    counted = [json.loads(line) for line in lines][WARM_UP_STEPS:-1]
    if len(counted) != steps:
        raise ValueError(f"the log has {len(lines)} steps, expected {WARM_UP_STEPS + steps + 1}")
    return Turn(
        side,
        [line["step_seconds"] for line in counted],
        sum(line["response_tokens"] for line in counted) / steps,
        sum(line["reward"] for line in counted) / steps,
    )


class Trl:
    """The process with TRL's trainer, which sleeps between its turns."""

    def __init__(self, setting: Setting, folder: Path, threads: int, seed: int = 0) -> None:
        """`folder` gets its settings, and what it says."""
        folder.mkdir(parents=True)
        given = {
            "model": str(setting.model),
            "prompts": setting.prompts,
            "prompt_tokens": PROMPT_TOKENS,
            "prompts_per_step": PROMPTS_PER_STEP,
            "samples_per_prompt": SAMPLES_PER_PROMPT,
            "response_tokens": RESPONSE_TOKENS,
            "learning_rate": LEARNING_RATE,
            "threads": threads,
            "folder": str(folder / "output"),
            "seed": seed,
        }
        settings, self._said = folder / "settings.json", folder / "said"
        settings.write_text(json.dumps(given), encoding="utf-8")
        self._errors = self._said.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [setting.trl_python, ROOT / "benchmarks" / "trl_side.py", settings],
            cwd=folder,  # Caliber's folders are not on its path
            # tcmalloc, where there is one, is of the system: Caliber's processes have it too
            env={**_environment("PYTHONPATH"), **allocator_environment(0), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions: Mapping[str, str] = self._answer()["versions"]

    def turn(self, way: Way, steps: int) -> Turn:
        """So many steps."""
        assert self._process.stdin is not None
        print(json.dumps({"way": asdict(way), "steps": steps}), file=self._process.stdin, flush=True)
        answer = self._answer()
        return Turn(TRL, answer["seconds"], answer["response_tokens"], answer["reward"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"TRL's process ended with {self._process.wait()}:\n{_tail(self._said)}")
        return dict(json.loads(line))


def _environment(*without: str) -> dict[str, str]:
    """That of this process without these, and without its number of threads, which is not meant for the sides."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *without)}


def _tail(file: Path) -> str:
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:])
