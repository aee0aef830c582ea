"""What of a recipe decides what a stage ends with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

from configs.schema import Recipe

# Settings that change nothing in what a stage ends with, or the rounding alone. What is in the data's files counts,
# wherever they lie: `cluster.digests` names their rows.
_CHECKPOINTS = {"checkpoint_every_steps", "checkpoints_kept"}
_PACE = {*_CHECKPOINTS, "eval_every_steps", "log_every_steps"}
_ROOM = {"cores", "ranks", "cpus_per_rank", "gpus_per_rank", "threads_per_rank"}
_NO_MATTER = {
    "data": {"root", "evaluation", "errors_shown", "image_megapixels_at_most"},
    "stage1": _PACE,
    "stage2": _PACE,
    "learner": {*_ROOM, "tokens_per_micro_batch", "share_prompts", "gradient_checkpointing"},
    "rl": {*_CHECKPOINTS, "seconds_per_wait"},
}

Settings = Mapping[str, object]  # JSON, by section


def settings_of(recipe: Recipe, sections: Iterable[str]) -> dict[str, object]:
    """These sections of a recipe, without what does not matter."""
    dumped = recipe.model_dump(mode="json", exclude=_NO_MATTER)
    return {name: dumped[name] for name in sections}


def digest(*parts: object) -> str:
    """A name for settings, and for whatever else a stage depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def changes(before: object, now: object, name: str = "") -> Iterator[str]:
    """Each setting that is another one now, called as overrides call it, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
