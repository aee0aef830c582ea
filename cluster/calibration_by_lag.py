"""Whether older confidences are worse ones: calibration by policy lag, of every step and over the run.

A response's lag is counted in weight versions between the first token of its confidence and the step that trains on it.
Beside the lags stand the responses that new weights came under between the first token of the answer and
that of the confidence: there one model says how sure it is of what another one answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cluster.metrics_table import aligned
from cluster.records import GroupRecord, SampleRecord
from cluster.stated_sums import StatedSums

ALL, TWO_VERSIONS = "all", "two_versions"

_SHOWN = {ALL: "all", TWO_VERSIONS: "two versions"}
_LEGEND = """\
What stage 3 trained on, by the weight versions between a confidence and its step; two versions: new weights came
between answer and confidence. ECE in points, ± what a perfectly calibrated model shows whose responses are independent:
the fewer they are, the more, so compare what is above it. As responses to a prompt go together, there is more chance
than that. A run's first steps have lower lags than others, and a less trained model."""


class CalibrationByLag:
    """Counts every response that is trained on."""

    def __init__(self) -> None:
        self._run: dict[str, StatedSums] = {}

    def step(self, records: Sequence[GroupRecord], version: int) -> dict[str, float]:
        """Count a batch that the learner at `version` trained on; its own numbers, as lag/ROW/METRIC."""
        of_step: dict[str, StatedSums] = {}
        samples = [sample for record in records for sample in record.scored]
        _count(samples, version, of_step)
        _count(samples, version, self._run)
        rows = {row: sums.measured() for row, sums in _ordered(of_step) if row != ALL}
        return {f"lag/{row}/{metric}": value for row, found in rows.items() for metric, value in found.items()}

    def table(self) -> str:
        """The run so far, a row for each lag there was, with a legend."""
        rows = [(name, *_cells(found)) for name, found in self.rows()]
        return "\n".join([aligned(["n", "accuracy", "mean c", "ECE", "Brier"], rows), _LEGEND])

    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """Each lag of the run so far with what `StatedSums.measured` says, and as "floor" the ECE of chance alone."""
        return [
            (_SHOWN.get(row, f"lag {row}"), sums.measured() | {"floor": sums.noise_floor()})
            for row, sums in _ordered(self._run)
        ]

    def state_dict(self) -> dict[str, list[list[float]]]:
        """What `load_state_dict` reads: of each row its confidences, with the sums of each."""
        return {row: [[value, *sums] for value, sums in of.rows.items()] for row, of in self._run.items()}

    def load_state_dict(self, state: Mapping[str, Iterable[Sequence[float]]]) -> None:
        """Go on where the state was taken."""
        self._run = {
            row: StatedSums({value: [stated, right, squares] for value, stated, right, squares in of})
            for row, of in state.items()
        }


def lag_row(lag: int) -> str:
    """The row of a lag: 0, 1, 2, 3-4, 5-8, 9-16, ..."""
    if lag < 3:
        return str(lag)
    last = 1 << (lag - 1).bit_length()
    return f"{last // 2 + 1}-{last}"


def _count(samples: Sequence[SampleRecord], version: int, rows: dict[str, StatedSums]) -> None:
    for sample in samples:
        if sample.confidence is None or sample.correct is None or sample.confidence_version is None:
            continue
        for row in _rows_of(sample.answer_version, sample.confidence_version, version):
            rows.setdefault(row, StatedSums()).add(sample.confidence, sample.correct)


def _rows_of(answer: int | None, confidence: int, version: int) -> Iterator[str]:
    yield ALL
    yield lag_row(version - confidence)
    if answer is not None and answer != confidence:
        yield TWO_VERSIONS


def _ordered(rows: Mapping[str, StatedSums]) -> list[tuple[str, StatedSums]]:
    """Lags first, ascending."""

    def place(row: str) -> tuple[float, str]:
        return math.inf if row in (ALL, TWO_VERSIONS) else int(row.partition("-")[0]), row

    return [(row, rows[row]) for row in sorted(rows, key=place)]


def _cells(found: Mapping[str, float]) -> list[str]:
    ece, floor = (f"{100 * found[name]:.1f}" for name in ("ece", "floor"))
    shown = (f"{found[name]:.3f}" for name in ("accuracy", "confidence"))
    return [f"{found['n']:.0f}", *shown, f"{ece} ±{floor}", f"{found['brier']:.3f}"]
