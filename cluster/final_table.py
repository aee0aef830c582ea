"""What a pipeline ends in: each stage, what recalibration would have made of it, and what stage 3 is no better in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.metrics_files import read_baselines, read_metrics
from cluster.metrics_table import metrics_table
from cluster.run_folder import RunFolder
from rewards.baselines import ISOTONIC
from rewards.metrics import Metrics
from rewards.tasks import OVERALL


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One stage on one evaluation file."""

    stage: int
    metrics: Metrics
    recalibrated: Metrics | None  # None: a stage without confidences, or evaluated before there were baselines

    def rows(self, name: str) -> Iterator[tuple[str, Metrics]]:
        yield f"stage {self.stage}, {name}", self.metrics
        if self.recalibrated is not None:
            yield f"stage {self.stage} {ISOTONIC}, {name}", self.recalibrated


def final_table(run: RunFolder, names: Sequence[str]) -> str:
    """The table of the three stages on the evaluation files of these names, from the files their evaluations wrote."""
    found = {name: [_read(run, stage, name) for stage in (1, 2, 3)] for name in names}
    rows = [row for name, stages in found.items() for one in stages for row in one.rows(name)]
    told = [line for name, (_, *two) in found.items() for line in (_defeat(name, *two), _losses(name, *two))]
    return "\n".join([metrics_table(rows), *(line for line in told if line is not None)])


def _read(run: RunFolder, stage: int, name: str) -> _Evaluation:
    folder = run.stage(stage).evaluation(name)
    return _Evaluation(stage, read_metrics(folder / "metrics.json")[OVERALL], read_baselines(folder).get(ISOTONIC))


def _defeat(name: str, second: _Evaluation, third: _Evaluation) -> str | None:
    """What to say where stage 3 is no better than stage 2 recalibrated; by the excess where all votes are known."""
    if second.recalibrated is None:
        return None
    before, after = second.recalibrated, third.metrics
    counted = all(one.n_counted == one.n for one in (before, after))
    measure = "excess Brier" if counted else "Brier"
    to_beat, reached = (one.excess_brier if counted else one.brier for one in (before, after))
    if to_beat is None or reached is None or reached < to_beat:
        return None
    return (
        f"On {name}, stage 3 is no better than stage 2 recalibrated by isotonic regression: "
        f"{measure} {reached:.4f} against {to_beat:.4f}."
    )


def _losses(name: str, second: _Evaluation, third: _Evaluation) -> str | None:
    """What to say where stage 3 answers worse than stage 2, which a Brier score of its readable responses does not."""
    measures = (
        ("accuracy", second.metrics.accuracy, third.metrics.accuracy, 1),
        ("AUROC", second.metrics.auroc, third.metrics.auroc, 1),
        ("share of malformed responses", second.metrics.malformed, third.metrics.malformed, -1),
    )
    lost = [
        f"{measure} {after:.3f} against {before:.3f}"
        for measure, before, after, better in measures
        if before is not None and after is not None and better * (round(before, 3) - round(after, 3)) > 0
    ]
    return f"On {name}, stage 3 is worse than stage 2: {', '.join(lost)}." if lost else None
