"""From prompts and scored groups to training sequences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from configs.schema import Learner, Rewards, RewardWeights
from learner.batching import MicroBatch, TrainingSequence, collate, row_length, share_prompts, split_by_length
from learner.tree import Branches, ConfidenceTree, OffTree
from rewards.mixing import combine, confidence_values, credits
from rollout.chat import ChatFormat, Expanded
from rollout.prompts import Prompt
from rollout.trajectory import Group, Score, Trajectory

# Pixel values kept ready: a few thousand small pictures, or the pictures of some steps of large ones.
_CACHED_BYTES = 2**30


class PromptCache:
    """Expanded prompts, the most recently used ones kept within a number of bytes."""

    def __init__(self, chat: ChatFormat, cached_bytes: int = _CACHED_BYTES) -> None:
        self._chat = chat
        self._room = cached_bytes
        self._kept: OrderedDict[str, Expanded] = OrderedDict()

    def get(self, prompt: Prompt) -> Expanded:
        """The prompt's ids and pixel values."""
        if prompt.prompt_id in self._kept:
            self._kept.move_to_end(prompt.prompt_id)
            return self._kept[prompt.prompt_id]
        expanded = self._chat.expand(prompt)
        self._kept[prompt.prompt_id] = expanded
        self._room -= _size(expanded)
        while self._room < 0 and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._room += _size(oldest)
        return expanded


def _size(expanded: Expanded) -> int:
    return expanded.token_ids.nbytes + (0 if expanded.pixel_values is None else expanded.pixel_values.nbytes)


def sft_sequence(
    prompt: Prompt, expanded: Expanded, tokenizer: PreTrainedTokenizerBase, confidence_token_weight: float = 1.0
) -> TrainingSequence:
    """The row's response with the end token; tokens of a stated confidence count `confidence_token_weight` times."""
    if prompt.response is None:
        raise ValueError(f"prompt {prompt.prompt_id} has no response to train on")
    made = tokenizer(prompt.response, add_special_tokens=False, return_offsets_mapping=True)
    begin, end = _stated_confidence(prompt.response)
    stated = [first < end and last > begin for first, last in made["offset_mapping"]]
    ids = [*made["input_ids"], tokenizer.eos_token_id]
    weights = np.where([*stated, False], confidence_token_weight, 1.0).astype(np.float32)
    return TrainingSequence(expanded, np.array(ids, np.int32), weights)


def _stated_confidence(response: str) -> tuple[int, int]:
    """Characters of the confidence in a response that was written for training; an empty range where it has none."""
    begin = response.rfind("<confidence>") + len("<confidence>")
    end = response.rfind("</confidence>")
    return (begin, end) if begin <= end else (0, 0)


def rl_sequences(
    group: Group, expanded: Expanded, weights: RewardWeights, rewards: Rewards, tree: ConfidenceTree | None = None
) -> list[TrainingSequence]:
    """The group's trajectories with an advantage for each token.

    `rewards.mixing.credits` says which. A trajectory without
    a score has weight 0: it is not trained on, and every rank has something to put through the model.
    With a tree, the sampled confidence tokens get no advantage; the branches that hang on their place stand for them.
    Where the policy spelt a confidence as the tree does not ("0.9" for "0.90"), the branches do not know of it: its
    tokens, up to the first that leaves the tree, are trained on what it earned over a malformed response, beside the
    branches. Both are the gradient of the reward that the policy expects, over all that it could have said.
    Where it spelt the tag otherwise than the tree begins, the sampled tokens stay.
    Raises ValueError where the engine saw other prompt ids than the learner does.
    """
    if not np.array_equal(group.prompt_tokens, expanded.token_ids):
        raise ValueError(
            f"group {group.group_id} of prompt {group.prompt_id}: the engine saw {len(group.prompt_tokens)} prompt "
            f"tokens that differ from the learner's {len(expanded.token_ids)}: are the model's processor and the "
            "limits of its pictures the same on both sides?"
        )
    scores = [t.score for t in group.trajectories if t.score is not None]
    found = iter(_credits(scores, weights, rewards))
    return [
        _rl_sequence(
            t,
            expanded,
            next(found) if t.score is not None else None,
            rewards.confidence_token_weight,
            _branches(t, weights, rewards, tree),
        )
        for t in group.trajectories
    ]


def _branches(
    trajectory: Trajectory, weights: RewardWeights, rewards: Rewards, tree: ConfidenceTree | None
) -> Branches | None:
    score = trajectory.score
    if tree is None or score is None or score.confidence_span is None:
        return None
    assert score.confidence is not None and score.target is not None, "what is well formed has both"
    anchor = score.confidence_span.start - 1
    tokens = trajectory.sample.tokens
    if anchor < 0 or tokens[anchor] != tree.before:
        return None
    stated = np.append(tree.confidences, score.confidence)
    *values, sampled = confidence_values(stated, score.target, score.parts["correctness"], weights, rewards)
    left = tree.leaves(tokens[anchor + 1 :])
    off_tree = None if left is None else OffTree(anchor + 1 + left, float(sampled))
    return Branches(tree, anchor, np.array(values), rewards.confidence_token_weight, off_tree)


class _Credit(NamedTuple):
    """Advantages of one trajectory."""

    answer: float  # of every token but the confidence's
    confidence: float  # of the confidence tokens


def _credits(scores: Sequence[Score], weights: RewardWeights, rewards: Rewards) -> list[_Credit]:
    parts = {name: np.array([score.parts[name] for score in scores]) for name in RewardWeights.model_fields}
    well_formed = np.array([score.malformed is None for score in scores], dtype=bool)
    stated, target = (np.array([getattr(s, name) or 0.0 for s in scores]) for name in ("confidence", "target"))
    found = credits(combine(parts, well_formed, weights, rewards.credit), stated, target, weights, rewards)
    return [_Credit(float(a), float(c)) for a, c in zip(found.answer, found.confidence, strict=True)]


def _rl_sequence(
    trajectory: Trajectory,
    expanded: Expanded,
    credit: _Credit | None,
    confidence_token_weight: float,
    branches: Branches | None,
) -> TrainingSequence:
    sample, score, spans = trajectory.sample, trajectory.score, trajectory.sample.version_spans
    mask: NDArray[np.bool_] = np.zeros(len(sample.tokens), dtype=bool)
    if score is not None and score.confidence_span is not None:
        mask[score.confidence_span.start : score.confidence_span.end] = True
    gained = credit or _Credit(0.0, 0.0)
    confidence = gained.confidence if branches is None else 0.0
    if branches is not None and branches.off_tree is not None:
        confidence = branches.off_tree.value
        mask[branches.anchor + 1 : branches.off_tree.place + 1] = True
    trained = np.where(mask, confidence_token_weight, 1.0) if credit is not None else np.zeros(len(mask))
    return TrainingSequence(
        prompt=expanded,
        response_tokens=sample.tokens,
        weights=trained.astype(np.float32),
        advantages=np.where(mask, confidence, gained.answer).astype(np.float32),
        behaviour_logprobs=sample.logprobs,
        confidence_mask=mask,
        versions=np.repeat([s.version for s in spans], [s.end - s.start for s in spans]),
        branches=branches,
    )


def micro_batches(sequences: Sequence[TrainingSequence], chat: ChatFormat, learner: Learner) -> list[MicroBatch]:
    """Rows bucketed by length and padded; sequences of one prompt share a row where the recipe's learner says so."""
    pad = chat.tokenizer.pad_token_id
    limit = learner.tokens_per_micro_batch
    rows = share_prompts(sequences, limit) if learner.share_prompts else [[sequence] for sequence in sequences]
    return [
        collate(
            [rows[i] for i in group],
            pad_token_id=0 if pad is None else pad,  # masked either way
            image_token_id=chat.image_token_id,
        )
        for group in split_by_length([*map(row_length, rows)], limit)
    ]
