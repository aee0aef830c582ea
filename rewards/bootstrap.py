"""How far metrics would move had other prompts been asked: bootstrap intervals, and two runs held against each other.

Prompts are drawn with replacement, and all outcomes of a prompt come along with it: responses to one prompt, and
annotators of one response, say less than as many independent ones (cluster bootstrap; Davison & Hinkley 1997, 3.8).
No response is copied. A resample is the number of times it draws each prompt, and metrics are made of weighted sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rewards.bins import equal_width_bins
from rewards.outcomes import Outcomes
from rewards.selective import aurc
from rewards.tally import Tally

RESAMPLES = 1000
LEVEL = 0.95
_NUMBERS_AT_ONCE = 2_000_000  # of an array over resamples and confidences: 16 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric, and where 95% of the resamples have it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two runs over the same prompts; the interval is that of the difference."""

    first: float
    second: float
    low: float
    high: float
    opposed: float  # share of the resamples without a difference, or with one of the other sign

    @property
    def value(self) -> float:
        """Second less first."""
        return self.second - self.first


def intervals(outcomes: Outcomes, resamples: int = RESAMPLES, seed: int = 0, bins: int = 10) -> dict[str, Interval]:
    """Percentile intervals by metric, under the names of `Metrics`; an undefined metric is left out.

    A resample in which a metric is undefined is left out of its interval. A resample of a calibration error is above
    the sample's own, by the noise that resampling adds: its interval lies high.
    Raises ValueError for fewer than two prompts, and without resamples.
    """
    prompts = distinct_prompts(outcomes)
    found = _estimates(outcomes, prompts, drawn_prompts(len(prompts), resamples, seed), bins)
    return {
        name: Interval(float(values[0]), *middle(values[1:]))
        for name, values in found.items()
        if not np.isnan(values[0])
    }


def compare(
    first: Outcomes, second: Outcomes, resamples: int = RESAMPLES, seed: int = 0, bins: int = 10
) -> dict[str, Difference]:
    """Differences by metric, each resample drawing the same prompts of both; left out where undefined for either.

    Raises ValueError where the prompts or their tasks differ, and as `intervals` does.
    """
    prompts = distinct_prompts(first)
    _refuse_other_prompts(first, second)
    drawn = drawn_prompts(len(prompts), resamples, seed)
    ours, theirs = (_estimates(outcomes, prompts, drawn, bins) for outcomes in (first, second))
    return {
        name: _difference(ours[name], theirs[name])
        for name in ours
        if not np.isnan(ours[name][0]) and not np.isnan(theirs[name][0])
    }


def resampled_tally(
    prompt_id: Sequence[str],
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Tally:
    """[1 + R, V] counts of [n] confidences and of right answers: the sample's own first, then each resample's.

    Of runs over the same prompts in the same order, the rows are of the same draws. Raises as `intervals` does.
    """
    prompts, prompt = np.unique(np.array(prompt_id), return_inverse=True)
    return _drawn_tally(confidence, correct, prompt, drawn_prompts(len(prompts), resamples, seed))


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    differences = second - first
    resampled = differences[1:][~np.isnan(differences[1:])]
    opposed = resampled * np.sign(differences[0]) <= 0
    return Difference(float(first[0]), float(second[0]), *middle(resampled), opposed=float(opposed.mean()))


def middle(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """Where 95% of the resampled values lie, nan left out; at least one."""
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def distinct_prompts(outcomes: Outcomes) -> list[str]:
    """The prompts, each once, in order of appearance."""
    return list(dict.fromkeys(outcomes.prompt_id))


def _refuse_other_prompts(first: Outcomes, second: Outcomes) -> None:
    asked = [set(zip(outcomes.prompt_id, outcomes.task, strict=True)) for outcomes in (first, second)]
    if strangers := sorted(asked[0] ^ asked[1]):
        prompt, task = strangers[0]
        raise ValueError(
            f"the two runs answer different prompts: {len(strangers)} are in one alone, such as {prompt!r} of "
            f"task {task!r}; compare runs over the same file"
        )


def drawn_prompts(prompts: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """[1 + R, P] how often each prompt is drawn; the first row is the sample itself, each prompt once."""
    if prompts < 2 or resamples < 1:
        raise ValueError(f"got {resamples} resamples of {prompts} prompts, expected at least 1 of at least 2")
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return np.vstack([np.ones(prompts), drawn])


def _estimates(
    outcomes: Outcomes, prompts: Sequence[str], drawn: NDArray[np.float64], bins: int
) -> dict[str, NDArray[np.float64]]:
    """[R] each metric under each row of drawn [R, P]; nan where it is undefined."""
    column = {prompt: number for number, prompt in enumerate(prompts)}
    prompt = np.array([column[one] for one in outcomes.prompt_id])
    confidence, correct, confident = outcomes.confidence, outcomes.correct, outcomes.confident

    def mean(values: NDArray[np.float64] | NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        totals = np.bincount(prompt[among], values[among], len(prompts))
        return _ratio(drawn @ totals, drawn @ np.bincount(prompt[among], minlength=len(prompts)))

    def ranked(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        return _by_confidence(confidence[among], right[among], prompt[among], drawn, bins)

    counted, majority = outcomes.counted, outcomes.majority
    ece, auroc, risk = ranked(correct, confident)
    return {
        "accuracy": mean(correct, np.ones_like(confident)),
        "majority_accuracy": mean(majority, counted),
        "mean_confidence": mean(confidence, confident),
        "ece": ece,
        "brier": mean((confidence - correct) ** 2, confident),
        "excess_brier": mean((confidence - outcomes.share) ** 2, confident & counted),
        "auroc": auroc,
        "majority_auroc": ranked(majority, confident & counted)[1],
        "aurc": risk,
    }


def _by_confidence(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    prompt: NDArray[np.intp],
    drawn: NDArray[np.float64],
    bins: int,
) -> NDArray[np.float64]:
    """[3, R] ECE, AUROC and AURC of [n] readable confidences under each row of drawn [R, P]."""
    values = len(np.unique(confidence))
    if not values:
        return np.full((3, len(drawn)), np.nan)
    found = []
    for some in np.array_split(drawn, -(-len(drawn) * values // _NUMBERS_AT_ONCE)):
        tally = _drawn_tally(confidence, correct, prompt, some)
        found.append([_ece(tally, bins), auroc(tally), aurc(tally)])
    return np.concatenate(found, axis=1)


def _drawn_tally(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    prompt: NDArray[np.intp],
    drawn: NDArray[np.float64],
) -> Tally:
    """[R, V] counts of [n] confidences under each row of drawn [R, P]."""
    values, place = np.unique(confidence, return_inverse=True)
    shape = drawn.shape[1], len(values)
    right, wrong = (csr_array((counted.astype(np.float64), (prompt, place)), shape) for counted in (correct, ~correct))
    return Tally(values, drawn @ right, drawn @ wrong)


def _ece(tally: Tally, bins: int) -> NDArray[np.float64]:
    """[R] expected calibration error over bins of equal width."""
    in_bin = np.eye(bins)[equal_width_bins(tally.values, bins)]
    gaps = (tally.stated * tally.values - tally.right) @ in_bin
    return _ratio(np.abs(gaps).sum(-1), tally.stated.sum(-1))


def auroc(tally: Tally) -> NDArray[np.float64]:
    """[...] share of the pairs of a right and a wrong answer with the right one more confident; ties count half."""
    below = tally.wrong.cumsum(-1) - tally.wrong / 2
    pairs = tally.right.sum(-1) * tally.wrong.sum(-1)
    return _ratio((tally.right * below).sum(-1), pairs)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
