"""From a response's text to its raw reward parts. No weight is applied here (see `rewards.mixing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.schema import Response, Rewards
from rewards.correctness import is_correct
from rewards.parse import ParsedResponse, parse
from rewards.scoring import Scorer

PARTS = ("correctness", "calibration", "format")  # the fields of configs.schema.RewardWeights


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response read and held against its target."""

    parsed: ParsedResponse
    correct: float | None  # 1 right, 0 wrong; None: malformed, so there is no answer to judge
    parts: Mapping[str, float]  # by the names in PARTS, for malformed responses too


def score_response(
    text: str,
    *,
    truncated: bool,
    target: str,
    candidates: Sequence[str],
    response: Response,
    rewards: Rewards,
) -> ScoredResponse:
    """Correctness 0 or 1, calibration by the scoring rule, format 1.

    A malformed response gets the least a well-formed one can get of every part: correctness 0, calibration
    at the rule's floor, format 0. So whatever the weights, no well-formed response can be worth less.

    Raises ValueError for a target that no answer can match.
    """
    _refuse_unreachable(target, candidates)
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    parsed = parse(text, elements=response.reasoning_elements, candidates=candidates, truncated=truncated)
    if parsed.answer is None or parsed.confidence is None:
        return ScoredResponse(parsed, None, _parts(0.0, scorer.range.lowest, 0.0))
    correct = float(is_correct(parsed.answer, target))
    return ScoredResponse(parsed, correct, _parts(correct, float(scorer(parsed.confidence, correct)), 1.0))


def _parts(correctness: float, calibration: float, form: float) -> dict[str, float]:
    return dict(zip(PARTS, (correctness, calibration, form), strict=True))


def _refuse_unreachable(target: str, candidates: Sequence[str]) -> None:
    if not target.strip() or (candidates and not any(is_correct(name, target) for name in candidates)):
        raise ValueError(
            f"got the target {target!r}, expected one of the candidates {list(candidates)} (any visible text "
            "where there are none): no answer could be right; mend the row's reference"
        )
