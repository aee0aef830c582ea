"""The form of a response."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field, field_validator

from configs.choices import ConfidenceScale
from configs.section import Section, Share

_WORDS = {
    "almost certainly wrong": 0.05,
    "probably wrong": 0.2,
    "possibly wrong": 0.35,
    "even": 0.5,
    "possibly right": 0.65,
    "probably right": 0.8,
    "almost certainly right": 0.95,
}


class Response(Section):
    """The form of a response: `<think>` with its elements, `<answer>`, `<confidence>`."""

    reasoning_elements: tuple[str, ...] = ("element", "human", "context", "interaction", "analysis")
    """Tags that the reasoning holds, in order, each once; may be empty."""
    confidence_scale: ConfidenceScale = ConfidenceScale.DECIMAL
    """How a confidence is stated: 0.85, 85%, or in words."""
    confidence_step: Annotated[float, Field(ge=0.001, le=0.5)] = 0.01
    """Stage 2 states confidences in multiples of this, a divisor of 1; a coarse grid is learned sooner."""
    confidence_words: Annotated[dict[str, Share], Field(min_length=2)] = _WORDS
    """What each word of the verbal scale stands for; other words are malformed."""
    confidence_off_grid: bool = True
    """Whether a number between the steps is well formed."""

    @field_validator("confidence_step")
    @classmethod
    def _divides_one(cls, step: float) -> float:
        if 1 % Decimal(str(step)) != 0:
            raise ValueError(f"1 is no multiple of {step}: confidences are 0, {step}, ... up to 1; try 0.05 or 0.01")
        return step

    @field_validator("confidence_words")
    @classmethod
    def _tells_apart(cls, words: dict[str, float]) -> dict[str, float]:
        plain = [" ".join(word.casefold().split()) for word in words]
        if not all(plain) or len(set(plain)) < len(plain) or len(set(words.values())) < len(plain):
            raise ValueError(f"got {words}, expected different words for different confidences")
        if marked := [word for word in words if "<" in word or ">" in word]:
            raise ValueError(f"got {marked}: < and > belong to tags; take other words")
        return words

    @property
    def confidences(self) -> dict[str, float]:
        """The grid, lowest first: as a confidence is stated, and what it is worth.

        Numbers have as many decimals as the step has: 0.00, 0.05, ... 1.00, or 0%, 5%, ... 100%.
        """
        if self.confidence_scale is ConfidenceScale.VERBAL:
            return dict(sorted(self.confidence_words.items(), key=lambda item: item[1]))
        step = Decimal(str(self.confidence_step))
        grid = [step * k for k in range(int(1 / step) + 1)]
        if self.confidence_scale is ConfidenceScale.DECIMAL:
            return {f"{value:f}": float(value) for value in grid}
        decimals = max(0, -int((100 * step).normalize().as_tuple().exponent))
        return {f"{100 * value:.{decimals}f}%": float(value) for value in grid}
