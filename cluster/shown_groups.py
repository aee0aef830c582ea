"""A group in a line, for whoever reads along: what was asked, what was answered, and what that was worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.records import record_of
from cluster.step_metrics import totals
from configs.schema import Rewards, RewardWeights
from rollout.trajectory import Group

_CHARACTERS = 24  # of an id, a reference or an answer: a model may answer with a page
_DIFFERENT = 8  # responses of a line


def shown_group(group: Group, step: int, weights: RewardWeights, rewards: Rewards) -> str:
    """The line of a scored group in the batch of `step`, with totals under the weights of that step.

    step 12, sun-3 (positive): 5x positive 0.80 = +1.76, neutral 0.30 = -0.09, missing_tag = -1.00, no score
    """
    found = Counter(_responses(group, weights, rewards)).most_common()
    shown = [f"{count}x {text}" if count > 1 else text for text, count in found[:_DIFFERENT]]
    if others := sum(count for _, count in found[_DIFFERENT:]):
        shown.append(f"{others} others")
    return f"step {step}, {_short(group.prompt_id)} ({_short(group.target)}): {', '.join(shown)}"


def _responses(group: Group, weights: RewardWeights, rewards: Rewards) -> Iterator[str]:
    record = record_of(group)
    if record.scored:
        for sample, total in zip(record.scored, totals(record.scored, weights, rewards), strict=True):
            stated = "" if sample.confidence is None else f" {sample.confidence:.2f}"
            yield f"{sample.malformed or _short(sample.answer) + stated} = {total:+.2f}"
    yield from ["no score"] * (len(record.samples) - len(record.scored))


def _short(text: str | None) -> str:
    """On one line, with nothing in it that a terminal would obey."""
    if text is None:
        return "no reference"
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= _CHARACTERS else f"{plain[: _CHARACTERS - 1]}…"
