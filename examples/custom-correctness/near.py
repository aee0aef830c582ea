"""What counts as right here: `rewards.correctness: near:Near` names this class."""

from __future__ import annotations

WEATHER = ("dry", "drizzle", "rain")


class Near:
    """1 for the forecaster's own word, a half for the one beside it: drizzle is not far from rain."""

    def __call__(self, answer: str, reference: str) -> float:
        """What an answer is worth against one forecaster's, in [0, 1]."""
        if answer not in WEATHER:
            return 0.0
        return max(0.0, 1 - abs(WEATHER.index(answer) - WEATHER.index(reference)) / 2)
