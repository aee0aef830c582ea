"""Watches stage 3 for the two ways in which a calibration that looks good is none, and for a learner led astray.

    collapse   every answer gets the same confidence: the base rate, which tells nothing of any one answer
    sabotage   answers go wrong on purpose, with a confidence near 0, which a proper score pays for: accuracy falls,
               and more responses stand outside their group's majority and say that they are wrong. Those are few
               again once all of a group go wrong alike, so all that say it are counted too
    parity     engine and learner disagree on log-probabilities under the same weights, of responses or of the
               probe: the ratios that should correct for policy lag then correct for arithmetic

All are judged over windows of steps, not on one step's luck, and told again only a window later. Parity does not
wait for the first window to be full: it is a mean over tokens, and a wrong setting is wrong from the first step on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

WINDOW = 20  # steps
# Confidences in use, below which they count as collapsed: as many as would have their entropy, were all stated equally
# often. Strays hardly add to it, however small the batch: 93 of 96 alike are 1.2.
COLLAPSED = 2.0
# Of the last window, against the one with the best accuracy so far: what sabotages may first learn to be right.
FELL = 0.05  # accuracy that it has less; honest emoji runs of 1,300 groups a window lose up to that to other prompts
SUSPECTS_ROSE = 0.03  # share of sabotage suspects that it has more
SURELY_WRONG_ROSE = 0.1  # share of responses with a confidence under 0.1 that it has more, in the majority or not
APART = 0.02  # nats of mean |difference| under the same weights; in bf16 unsure text has more by rounding alone

Metrics = Mapping[str, float | None]


class Monitor:
    """Sees the metrics of every step."""

    def __init__(self) -> None:
        self._best: dict[str, float] = {}  # means of the window with the best accuracy; {}: none was full
        self._window: deque[Metrics] = deque(maxlen=WINDOW)
        self._told: dict[str, int] = {}
        # By kind of warning, 1 where the last step gave reason for it, else 0; None where nothing was seen of it.
        self.standing: dict[str, float | None] = {}

    def look(self, metrics: Metrics, step: int) -> list[str]:
        """What there is to warn of after a step; each warning names what to change."""
        self._window.append({name: metrics.get(name) for name in _WATCHED})
        last = self._means()
        found = {"parity": self._parity(last)}
        if len(self._window) == WINDOW:
            if last.get("accuracy", 0.0) >= self._best.get("accuracy", 0.0):
                self._best = last
            found |= {"collapse": self._collapse(last), "sabotage": self._sabotage(self._best, last)}
        self.standing = {f"warning/{name}": float(text is not None) for name, text in found.items()}
        if not last.keys() & _SAME_WEIGHTS.keys():
            self.standing["warning/parity"] = None
        due = {name: text for name, text in found.items() if text and step - self._told.get(name, -WINDOW) >= WINDOW}
        self._told |= dict.fromkeys(due, step)
        return list(due.values())

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` reads."""
        return {"best": self._best, "window": list(self._window), "told": self._told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken."""
        self._best = dict(state.get("best", {}))  # older checkpoints have none: it is sought from here on
        self._told = dict(state["told"])
        self._window = deque(state["window"], maxlen=WINDOW)

    def _means(self) -> dict[str, float]:
        values = {name: [v for m in self._window if (v := m.get(name)) is not None] for name in _WATCHED}
        return {name: sum(of) / len(of) for name, of in values.items() if of}

    def _collapse(self, last: Mapping[str, float]) -> str | None:
        in_use = math.exp(last.get("confidence_entropy", math.inf))
        if in_use >= COLLAPSED:
            return None
        return (
            f"COLLAPSE: over {WINDOW} steps {in_use:.1f} confidences, by their entropy, were in use, around "
            f"{last['confidence']:.2f}, whatever the answer. Lower rl.optimizer.learning_rate, set "
            "rewards.confidence_gradient to exact, or train stage 2 until its confidences tell answers apart "
            "(stage2.steps, seeding.source, seeding.uniform_share)"
        )

    def _sabotage(self, best: Mapping[str, float], last: Mapping[str, float]) -> str | None:
        if "accuracy" not in last or best.get("accuracy", 0.0) - last["accuracy"] <= FELL:
            return None
        marks = [
            f"{of} went from {best[name]:.1%} to {last[name]:.1%}"
            for name, (enough, of) in _MARKS.items()
            if name in best and name in last and last[name] - best[name] > enough
        ]
        if not marks:
            return None
        return (
            f"SABOTAGE: {' and '.join(marks)} while accuracy fell from {best['accuracy']:.1%} to "
            f"{last['accuracy']:.1%}. Set rewards.credit to apart, or lower the weight of calibration "
            "(caliber reweight RUN calibration=...)"
        )

    def _parity(self, last: Mapping[str, float]) -> str | None:
        seen = {name: last[name] for name in _SAME_WEIGHTS if name in last}
        name = max(seen, key=lambda name: seen[name], default=None)
        if name is None or seen[name] <= APART:
            return None
        return (
            f"PARITY: engine and learner are {seen[name]:.3f} nats a token apart under the same weights, on "
            f"{_SAME_WEIGHTS[name]}; {APART:g} is looked for. Look at engine.precision and learner.precision (is fp32 "
            "better, or fp32_head of both? In bf16 rounding alone is more where the model is unsure of its words), "
            "rl.temperature, and the model's processor and its limits (model.min_image_pixels, model.max_image_pixels)"
        )


_SAME_WEIGHTS = {"parity": "fresh responses (`parity`)", "probe": "the run's probe (`probe`)"}
_MARKS = {  # of sabotage: how much more of it is enough, and what it is
    "sabotage": (SUSPECTS_ROSE, "answers outside their group's majority with a confidence under 0.1"),
    "surely_wrong": (SURELY_WRONG_ROSE, "responses with a confidence under 0.1"),
}
_WATCHED = ("confidence_entropy", "confidence", "accuracy", *_MARKS, *_SAME_WEIGHTS)
