"""What a reward worker does with a group, and the Ray actor that does it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import ray
from transformers import AutoTokenizer

from cluster.actor_names import NamedActor
from cluster.matchers import opened
from cluster.records import GroupRecord, record_of
from configs.schema import Recipe
from rollout.codec import decode_group
from rollout.prompts import Prompt
from rollout.rollout_file import RolloutWriter
from rollout.scored import GroupScorer


class RewardWorker(NamedActor):
    """Scores groups and writes them to disk; `score` may be called from several threads."""

    def __init__(self, model_dir: str, recipe: Recipe, file: str) -> None:
        self._model_dir = model_dir
        self._recipe = recipe
        self._file = Path(file)
        self._open = ExitStack()
        self._writing = threading.Lock()

    def start(self) -> None:
        """Open the file and the matcher: not in __init__, since of what that raises Ray makes the actor's death.

        Raises what `cluster.matchers.opened` raises.
        """
        recipe = self._recipe
        tokenizer = AutoTokenizer.from_pretrained(self._model_dir, trust_remote_code=False).backend_tokenizer
        matches = self._open.enter_context(opened(recipe.rewards, recipe.reward_service))
        self._scorer = GroupScorer(tokenizer, recipe.response, recipe.rewards, matches)
        self._writer = self._open.enter_context(RolloutWriter(self._file))

    def score(self, encoded: bytes, prompt: Prompt) -> tuple[GroupRecord, bytes]:
        """The record of the scored group, and the group encoded.

        A worker that dies between writing and answering leaves the group on disk, and another one scores and writes it
        again: a group may be in the files twice, and readers keep the last one they meet (`cluster.rescore`).
        """
        group = self._scorer.score(decode_group(encoded), prompt)
        with self._writing:
            written = self._writer.append(group)
            self._writer.flush()
        return record_of(group), written

    def close(self) -> None:
        """Close the rollout file, and end the matcher's process or connections."""
        self._open.close()


RewardActor = ray.remote(RewardWorker)
