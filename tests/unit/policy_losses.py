"""Stage 3's losses once more, token by token in plain numbers: what the tests hold the real ones against.

Each takes one response as lists of floats and gives, for each of its tokens, the loss and its derivative by the token's
log-probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log

from configs.schema import Correction, KlEstimator, Proximal, Rl

Found = list[tuple[float, float]]  # loss and derivative of each token
Numbers = Sequence[float]


def clip(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


def ppo(ratio: float, advantage: float, low: float, high: float) -> tuple[float, float]:
    """Where the clipped term is the smaller one, it is a constant."""
    held = clip(ratio, low, high)
    if held * advantage < ratio * advantage:
        return -held * advantage, 0.0
    return -ratio * advantage, -ratio * advantage


def weighted(now: Numbers, engine: Numbers, advantages: Numbers, weigh: Callable[[float], float]) -> Found:
    """A constant weight on advantage * log p."""
    weights = [weigh(exp(p - q)) for p, q in zip(now, engine, strict=True)]
    return [(-w * a * p, -w * a) for w, a, p in zip(weights, advantages, now, strict=True)]


def sequence_level(now: Numbers, engine: Numbers, advantages: Numbers, low: float, high: float) -> Found:
    """The length-th root of the whole response's ratio, for each token."""
    whole = 1.0
    for p, q in zip(now, engine, strict=True):
        whole *= exp(p) / exp(q)
    return [ppo(whole ** (1 / len(now)), advantage, low, high) for advantage in advantages]


def decoupled(
    now: Numbers, engine: Numbers, proximal: Numbers, advantages: Numbers, low: float, high: float, cap: float
) -> Found:
    found = []
    for p, q, between, advantage in zip(now, engine, proximal, advantages, strict=True):
        weight = min(exp(between) / exp(q), cap)
        loss, derivative = ppo(exp(p) / exp(between), advantage, low, high)
        found.append((weight * loss, weight * derivative))
    return found


def interpolated(now: Numbers, engine: Numbers, lags: Sequence[int]) -> list[float]:
    """In probabilities: of d versions, 1 / d is the engine's."""
    return [
        log(exp(p) ** (1 - 1 / lag) * exp(q) ** (1 / lag)) if lag else p
        for p, q, lag in zip(now, engine, lags, strict=True)
    ]


def losses_of(rl: Rl, now: Numbers, engine: Numbers, advantages: Numbers, lags: Sequence[int], first: Numbers) -> Found:
    """What a recipe's `rl` asks for; `first` are log-probabilities under the batch's first weights."""
    low, high, cap = rl.ratio_low or 0.0, rl.ratio_high or 0.0, rl.importance_cap or 0.0
    match rl.correction:
        case Correction.NONE:
            return weighted(now, engine, advantages, lambda ratio: 1.0)
        case Correction.TRUNCATED:
            return weighted(now, engine, advantages, lambda ratio: min(ratio, cap))
        case Correction.ICEPOP:
            return weighted(now, engine, advantages, lambda ratio: ratio if low <= ratio <= high else 0.0)
        case Correction.CISPO:
            return weighted(now, engine, advantages, lambda ratio: clip(ratio, low, high))
        case Correction.GSPO:
            return sequence_level(now, engine, advantages, low, high)
        case Correction.DECOUPLED_PPO:
            between = interpolated(now, engine, lags) if rl.proximal is Proximal.INTERPOLATED else first
            return decoupled(now, engine, between, advantages, low, high, cap)


def kl_pulls(rl: Rl, now: Numbers, reference: Numbers, stated: Sequence[bool]) -> list[float]:
    """What the KL to the reference adds to each token's derivative; nothing to those of the stated confidence."""
    ratios = [exp(r) / exp(p) for p, r in zip(now, reference, strict=True)]
    by_estimator = {KlEstimator.K2: lambda ratio: -log(ratio), KlEstimator.K3: lambda ratio: 1 - ratio}
    pull = by_estimator[rl.kl_estimator]
    return [0.0 if own else rl.kl_weight * pull(ratio) for ratio, own in zip(ratios, stated, strict=True)]
