"""What a reward worker does with a group, and the Ray actor that does it."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import ray
from transformers import AutoTokenizer

from cluster.actor_names import NamedActor
from cluster.matchers import opened
from cluster.records import GroupRecord, record_of
from configs.schema import Recipe
from rollout.codec import decode_group, encode_group
from rollout.prompts import Prompt
from rollout.rollout_file import RolloutWriter
from rollout.scored import GroupScorer

logger = logging.getLogger(__name__)


class RewardWorker(NamedActor):
    """Scores groups and writes them to disk; `score` may be called from several threads."""

    def __init__(self, model_dir: str, recipe: Recipe, file: str) -> None:
        self._model_dir = model_dir
        self._recipe = recipe
        self._file = Path(file)
        self._writer: RolloutWriter | None = None
        self._open = ExitStack()
        self._writing = threading.Lock()

    def start(self) -> None:
        """Open the matcher: not in __init__, since of what that raises Ray makes the actor's death.

        Raises what `cluster.matchers.opened` raises.
        """
        recipe = self._recipe
        tokenizer = AutoTokenizer.from_pretrained(self._model_dir, trust_remote_code=False).backend_tokenizer
        matches = self._open.enter_context(opened(recipe.rewards, recipe.reward_service))
        self._scorer = GroupScorer(tokenizer, recipe.response, recipe.rewards, matches)

    def score(self, encoded: bytes, prompt: Prompt) -> tuple[GroupRecord, bytes]:
        """The record of the scored group, and the group encoded.

        A worker that dies between writing and answering leaves the group on disk, and another one scores and writes it
        again: a group may be in the files twice, and readers keep the last one they meet (`cluster.rescore`). Where the
        disk does not take a group, the record says so, and the group is trained on all the same.
        """
        group = self._scorer.score(decode_group(encoded), prompt)
        scored = encode_group(group)
        with self._writing:
            try:
                self._write(scored)
            except OSError as error:
                logger.error("GROUP %d IS NOT WRITTEN to %s: %s", group.group_id, self._file, error)
                return replace(record_of(group), written=False), scored
        return record_of(group), scored

    def close(self) -> None:
        """Close the rollout file, and end the matcher's process or connections."""
        self._open.close()

    def _write(self, scored: bytes) -> None:
        """Raises OSError."""
        if self._writer is None:  # not before there is a group to lose: a full disk does not take the header either
            self._writer = self._open.enter_context(RolloutWriter(self._file))
        self._writer.append_encoded(scored)


RewardActor = ray.remote(RewardWorker)
