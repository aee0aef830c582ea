"""A script: what a Hugging Face directory says of prompts, by vLLM alone.

    python plain_vllm.py ASKED ANSWERS

ASKED is a JSON file with `settings`, the arguments of vLLM's `LLM`, `conversations` as chat templates take them, and
`adapter`, the folder of a LoRA adapter or null. ANSWERS becomes one with the library's version
and, for each, the prompt's token ids, the log-probability of each but the first, and those of the likeliest after it.
Nothing of this project is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import vllm
from PIL import Image
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform

_LIKELIEST = 20  # vLLM's own limit
_KV_CACHE = 2**28  # bytes; for two prompts at a time


def main(asked_file: str, answers_file: str) -> None:
    """Answer."""
    asked = json.loads(Path(asked_file).read_text(encoding="utf-8"))
    settings = asked["settings"]
    if current_platform.is_cpu():
        alone = settings.get("tensor_parallel_size", 1) == 1
        settings |= {"kv_cache_memory_bytes": _KV_CACHE, "distributed_executor_backend": "uni" if alone else "mp"}
    sampling = SamplingParams(temperature=0.0, max_tokens=1, logprobs=_LIKELIEST, prompt_logprobs=0)
    outputs = LLM(**settings).chat(
        [_with_pictures(conversation) for conversation in asked["conversations"]],
        sampling,
        use_tqdm=False,
        lora_request=None if asked["adapter"] is None else LoRARequest("adapter", 1, asked["adapter"]),
    )
    answered = {"version": vllm.__version__, "answers": [_answer(output) for output in outputs]}
    Path(answers_file).write_text(json.dumps(answered), encoding="utf-8")


def _with_pictures(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for message in conversation:
        for part in message["content"]:
            if isinstance(part, dict) and part["type"] == "image":
                part |= {"type": "image_pil", "image_pil": Image.open(part.pop("path"))}
    return conversation


def _answer(output: RequestOutput) -> dict[str, Any]:
    token_ids = output.prompt_token_ids
    after = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return {
        "token_ids": token_ids,
        "prompt_logprobs": [by_token[token].logprob for token, by_token in after],
        "likeliest": {token: found.logprob for token, found in output.outputs[0].logprobs[0].items()},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
