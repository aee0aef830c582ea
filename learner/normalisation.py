"""What stage 3's loss is a mean over: a matter of the tokens' weights, and of what each sequence adds to the divisor.

`Policy.step` sums weighted losses and divisors over all micro-batches and ranks and divides once, so the mean does not
depend on how sequences were cut into micro-batches. With w a token's weight (that of a confidence's tokens included)
and l its loss, over the S responses that are trained on:

    token          sum of w l over all tokens / sum of w over all tokens
    sequence       1/S sum over responses of (sum of w l / sum of w)      GRPO, arXiv 2402.03300, eq. 3
    fixed_length   1/S sum over responses of (sum of w l / length)        Dr. GRPO, arXiv 2503.20783, section 3.2

The sequence mean weighs the tokens of short responses up: a wrong one is punished less for being long. The other two
weigh all tokens of a batch alike. Only the fixed length's divisor does not hang on how long the responses happened to
be, so that only its gradient is that of the expected reward, up to a constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from configs.schema import LossMean
from learner.batching import TrainingSequence


def normalised(sequences: Iterable[TrainingSequence], mean: LossMean, length: int) -> list[TrainingSequence]:
    """The sequences, weighted as the mean asks; `length` is the fixed one, in tokens.

    Branches weigh as the confidence tokens they stand for. A sequence that is not trained on counts as none.
    """
    if mean is LossMean.TOKEN:
        return list(sequences)
    return [_normalised(sequence, length if mean is LossMean.FIXED_LENGTH else None) for sequence in sequences]


def _normalised(sequence: TrainingSequence, length: int | None) -> TrainingSequence:
    total = sequence.divisor
    if total == 0:
        return sequence
    scale = 1 / (length or total)
    branches = sequence.branches
    return replace(
        sequence,
        weights=(sequence.weights * scale).astype(np.float32),
        branches=None if branches is None else replace(branches, weight=branches.weight * scale),
        counts_as=1.0,
    )
