"""How good the answers are, and how well the stated confidence tells: accuracy and calibration together.

`metrics` builds one flat `Metrics` in three steps, each from the responses it can speak of:

    step            responses                                    counted in
    answers         all; a malformed one is a wrong one          n
    calibration     those with a readable confidence             n_confident
    annotators      those whose annotators' votes are known      n_counted

What is undefined (a rank correlation of a constant, an AUROC of one class, calibration without
confidences) is None, never 0. Errors and scores are fractions of 1, not points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, f1_score, log_loss, recall_score, roc_auc_score

from rewards.bins import calibration_error, clustered_noise_floor, debiased_error, equal_mass_bins, equal_width_bins
from rewards.correctness import normalise_answer
from rewards.decomposition import decompose
from rewards.outcomes import Outcomes
from rewards.selective import aurc, coverage_at_risk, excess_aurc
from rewards.smooth_ece import smooth_ece
from rewards.suspicion import entropy, sabotage_rate, values_in_use, weighted_mean
from rewards.tally import tally

LOG_LOSS_CLIP = 0.01  # a certain, wrong answer costs 4.6 nats, not infinity; the recipes' default log_clip
MALFORMED = ""  # a label that is no class: of no answer, and of one that only looks right


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Every number of one set of outcomes; `dataclasses.asdict` of it is JSON. None: undefined."""

    n: int  # outcomes
    n_confident: int  # outcomes with a readable confidence
    n_counted: int  # outcomes whose annotators' votes are known
    unscored: int = 0  # responses without a verdict and so without outcomes, where `rewards.tasks.by_task` counted them

    accuracy: float | None = None
    balanced_accuracy: float | None = None  # mean recall of the classes that occur as truth
    weighted_f1: float | None = None  # F1 of each class, weighted by how often it is the truth
    malformed: float | None = None  # share without an answer
    malformed_causes: Mapping[str, float] | None = None  # the same by `rewards.parse.Malformed`, those that there are

    mean_confidence: float | None = None
    confidence_right: float | None = None  # mean confidence of right answers
    confidence_wrong: float | None = None  # and of wrong ones
    confidence_entropy: float | None = None  # nats, of the stated values to 2 decimals
    sabotage: float | None = None  # share of the responses outside their prompt's majority, confidence under 0.1
    distinct_confidences: int | None = None  # values, to 2 decimals, that at least 1% of all responses state
    ece_bins: int | None = None  # bins asked for in ece and ece_mass
    ece: float | None = None  # bins of equal width
    ece_mass: float | None = None  # bins of equal mass
    ece_noise_floor: float | None = None  # expected ece of a calibrated model; outcomes of a prompt go together
    ece_debiased: float | None = None  # root mean square over bins of equal mass, less what is chance; 0: all is
    smooth_ece: float | None = None  # without bins
    brier: float | None = None  # reliability - resolution + uncertainty
    reliability: float | None = None  # what confidences are off, each stated value by itself
    resolution: float | None = None  # what they gain by telling right answers from wrong ones
    uncertainty: float | None = None  # of right and wrong; constant_brier by its name in the decomposition
    constant_brier: float | None = None  # of the best constant confidence: the base rate of these answers
    log_loss: float | None = None  # nats, confidence clipped to [log_loss_clip, 1 - log_loss_clip]
    log_loss_clip: float | None = None
    auroc: float | None = None  # of confidence for being right
    aurc: float | None = None  # mean share of wrong answers among the most confident, over all coverages
    excess_aurc: float | None = None  # above an order with all right answers first
    coverage_at_risk_5: float | None = None  # largest share a threshold keeps with at most 5% of it wrong
    coverage_at_risk_10: float | None = None  # 10% of it
    coverage_at_risk_20: float | None = None  # 20% of it

    best_accuracy: float | None = None  # expected, had each answer been the majority's
    accuracy_expected: float | None = None  # over fresh annotators: mean share
    majority_accuracy: float | None = None  # share of the answers that are the majority's, or one of those that tie
    majority_auroc: float | None = None  # of confidence for that
    majority_brier: float | None = None  # least expected Brier, had each answer been the majority's
    best_brier: float | None = None  # least expected Brier for the answers given
    excess_brier: float | None = None  # mean (confidence - share)^2
    brier_expected: float | None = None  # over fresh annotators: best_brier + excess_brier
    confidence_share_rank_correlation: float | None = None  # Spearman's


def metrics(outcomes: Outcomes, bins: int = 10, same: Callable[[str], Hashable] = normalise_answer) -> Metrics:
    """All metrics of the outcomes, over `bins` bins for the calibration errors; bins >= 1.

    Answers for which `same` gives the same are one where responses to a prompt are held against each other.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, but a calibration error needs at least 1")
    answers = _answer_metrics(outcomes)
    calibrated = _with_calibration(answers, outcomes, bins)
    return _with_annotators(replace(calibrated, sabotage=_sabotage(outcomes, same)), outcomes)


def _answer_metrics(outcomes: Outcomes) -> Metrics:
    """What can be said of the answers alone."""
    sizes = Metrics(
        n=len(outcomes),
        n_confident=int(outcomes.confident.sum()),
        n_counted=int(outcomes.counted.sum()),
    )
    if not sizes.n:
        return sizes
    truth = [normalise_answer(truth) for truth in outcomes.truth]
    answer = [_label(*one) for one in zip(outcomes.answer, truth, outcomes.correct, strict=True)]
    classes = sorted(set(truth))
    return replace(
        sizes,
        accuracy=float(outcomes.correct.mean()),
        # macro recall over the true classes is balanced accuracy, and takes answers outside them
        balanced_accuracy=float(recall_score(truth, answer, labels=classes, average="macro")),
        weighted_f1=float(f1_score(truth, answer, labels=classes, average="weighted", zero_division=0)),
        malformed=float(np.mean([given is None for given in outcomes.answer])),
        malformed_causes=_shares_of_causes(outcomes),
    )


def _with_calibration(found: Metrics, outcomes: Outcomes, bins: int) -> Metrics:
    """Adds what can be said of stated confidences."""
    if not found.n_confident:
        return found
    readable = outcomes.where(outcomes.confident)
    confidence, correct = readable.confidence, readable.correct
    base_rate = float(correct.mean())
    width, mass = equal_width_bins(confidence, bins), equal_mass_bins(confidence, bins)
    parts, counts = decompose(confidence, correct), tally(confidence, correct)
    clipped = np.clip(confidence, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return replace(
        found,
        mean_confidence=float(confidence.mean()),
        confidence_right=weighted_mean(confidence, correct.astype(np.float64)),
        confidence_wrong=weighted_mean(confidence, (~correct).astype(np.float64)),
        confidence_entropy=entropy(confidence),
        distinct_confidences=values_in_use(confidence, found.n),
        ece_bins=bins,
        ece=calibration_error(confidence, correct, width),
        ece_mass=calibration_error(confidence, correct, mass),
        ece_noise_floor=clustered_noise_floor(confidence, correct, width, _numbered(readable.prompt)),
        ece_debiased=debiased_error(confidence, correct, mass),
        smooth_ece=smooth_ece(confidence, correct),
        brier=float(brier_score_loss(correct, confidence)),
        reliability=parts.reliability,
        resolution=parts.resolution,
        uncertainty=parts.uncertainty,
        constant_brier=base_rate * (1 - base_rate),
        log_loss=float(log_loss(correct, clipped, labels=[False, True])),
        log_loss_clip=LOG_LOSS_CLIP,
        auroc=_auroc(correct, confidence),
        aurc=float(aurc(counts)),
        excess_aurc=float(excess_aurc(counts)),
        coverage_at_risk_5=float(coverage_at_risk(counts, 0.05)),
        coverage_at_risk_10=float(coverage_at_risk(counts, 0.1)),
        coverage_at_risk_20=float(coverage_at_risk(counts, 0.2)),
    )


def _sabotage(outcomes: Outcomes, same: Callable[[str], Hashable]) -> float | None:
    """Share of suspects among the responses, each counted once; None without confidences."""
    if not outcomes.confident.any():
        return None
    responses = outcomes.where(outcomes.first_of_response)
    return sabotage_rate(responses.prompt, responses.answer, responses.confidence, same)


def _numbered(prompt: Sequence[tuple[str, str]]) -> NDArray[np.intp]:
    """[n] the prompts by number, in order of appearance."""
    number = {one: place for place, one in enumerate(dict.fromkeys(prompt))}
    return np.array([number[one] for one in prompt], dtype=np.intp)


def _label(answer: str | None, truth: str, correct: bool) -> str:
    """The answer as a class: the truth's where it is right, whatever its spelling, and none of its where it is not."""
    if correct:
        return truth
    given = MALFORMED if answer is None else normalise_answer(answer)
    return MALFORMED if given == truth else given


def _shares_of_causes(outcomes: Outcomes) -> dict[str, float] | None:
    if outcomes.cause is None:
        return None
    causes = Counter(cause for cause in outcomes.cause if cause is not None)
    return {cause: count / len(outcomes) for cause, count in causes.most_common()}


def _with_annotators(found: Metrics, outcomes: Outcomes) -> Metrics:
    """Adds what can be said where the true probability of each answer, the annotators' share, is known."""
    if not found.n_counted:
        return found
    counted = outcomes.where(outcomes.counted)
    best = counted.best_share
    expected = replace(
        found,
        best_accuracy=float(best.mean()),
        accuracy_expected=float(counted.share.mean()),
        majority_accuracy=float(counted.majority.mean()),
        majority_brier=float((best * (1 - best)).mean()),
    )
    readable = counted.where(counted.confident)
    if not len(readable):
        return expected
    confidence, share = readable.confidence, readable.share
    return replace(
        expected,
        best_brier=float((share * (1 - share)).mean()),
        excess_brier=float(((confidence - share) ** 2).mean()),
        brier_expected=float((share * (1 - confidence) ** 2 + (1 - share) * confidence**2).mean()),
        confidence_share_rank_correlation=_rank_correlation(confidence, share),
        majority_auroc=_auroc(readable.majority, confidence),
    )


def _auroc(right: NDArray[np.bool_], confidence: NDArray[np.float64]) -> float | None:
    """Of confidence [n] for being right [n]; None where all are, or none is."""
    return float(roc_auc_score(right, confidence)) if 0 < right.mean() < 1 else None


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's correlation of [n] and [n]; None where either is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
