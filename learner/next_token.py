"""What a model says of prompts, as the learner computes it: what an export of it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedModel

from learner.architecture import model_class
from rollout.chat import ChatFormat
from rollout.prompts import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Of one prompt, in fp32."""

    token_ids: list[int]  # [P] as the model's forward pass takes them
    logits: torch.Tensor  # [vocabulary] of the token that comes after the prompt
    prompt_logprobs: torch.Tensor  # [P - 1] of each token of the prompt after the first


def load_in_fp32(folder: str) -> PreTrainedModel:
    """The Hugging Face model in `folder`, whatever the precision of its file."""
    kind = model_class(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    return kind.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()


def said_of(model: PreTrainedModel, chat: ChatFormat, prompts: Sequence[Prompt]) -> list[Said]:
    """Of each prompt, on the model's device. Raises ValueError for prompts that the model cannot read."""
    return [_said(model, chat, prompt) for prompt in prompts]


@torch.no_grad()
def _said(model: PreTrainedModel, chat: ChatFormat, prompt: Prompt) -> Said:
    expanded = chat.expand(prompt)
    ids = torch.from_numpy(expanded.token_ids).long()[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if expanded.pixel_values is not None:
        inputs["pixel_values"] = expanded.pixel_values
        assert chat.image_token_id is not None, "a model that sees has a token for what it sees"
        inputs["mm_token_type_ids"] = torch.eq(ids, chat.image_token_id).long()
        if expanded.image_grid_thw is not None:
            inputs["image_grid_thw"] = expanded.image_grid_thw
    logits = model(**inputs).logits[0].float()
    logprobs = logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return Said(ids[0].tolist(), logits[-1], logprobs)
