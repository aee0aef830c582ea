"""The Ray actor that scores groups."""

from __future__ import annotations

from pathlib import Path

import ray
from transformers import AutoTokenizer

from cluster.records import GroupRecord, record_of
from configs.schema import Recipe
from rollout.codec import decode_group, encode_group
from rollout.prompts import Prompt
from rollout.rollout_file import RolloutWriter
from rollout.scored import GroupScorer


@ray.remote
class RewardActor:
    """Scores groups and writes them to disk."""

    def __init__(self, model_dir: str, recipe: Recipe, file: str) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model_dir).backend_tokenizer
        self._scorer = GroupScorer(tokenizer, recipe.response, recipe.rewards)
        self._writer = RolloutWriter(Path(file))

    def ready(self) -> None:
        """Answers once the scorer is up."""

    def score(self, encoded: bytes, prompt: Prompt) -> tuple[GroupRecord, bytes]:
        """The record of the scored group, and the group encoded."""
        group = self._scorer.score(decode_group(encoded), prompt)
        self._writer.append(group)
        self._writer.flush()
        return record_of(group), encode_group(group)

    def close(self) -> None:
        """Close the rollout file."""
        self._writer.close()
