"""Metrics as an aligned plain-text table: a row for each set of outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rewards.metrics import LOG_LOSS_CLIP, Metrics

UNDEFINED = "-"
WIDE_ENOUGH = 1000  # characters; a table in a job's output must not be folded to some terminal's width

LEGEND = f"""\
best acc.: accuracy of the majority's answers; maj. acc.: share of the answers that are the majority's, and maj. AUROC
that of the confidence for being one; best Brier: the least for the answers given; excess: what is above it, mean
(confidence - annotators' share)^2. ECE in points, ± what a perfectly calibrated model shows, the outcomes of a prompt
taken together; debiased: root mean square over bins of equal mass, less what is chance; smooth: without bins.
Brier = reliability - resolution + uncertainty. Log loss in nats, clipped at {LOG_LOSS_CLIP:g}. AURC: mean share of
wrong answers among the most confident, and its excess over the best order; at 10%: the share of the answers that
a threshold keeps with 10% of them wrong. Distinct: confidences that at least 1% of responses state."""


def metrics_table(named: Sequence[tuple[str, Metrics]]) -> str:
    """The table, with a legend under it; shares and scores are fractions of 1, ECE in percent points."""
    rows = [(name, *cells(found).values()) for name, found in named]
    left_out = [f"{name}: {unscored(found)}" for name, found in named if found.unscored]
    return "\n".join([aligned([header for header, _ in _COLUMNS], rows), *left_out, LEGEND])


def unscored(found: Metrics) -> str:
    """How many responses are in none of the numbers, and why: a line behind their name."""
    return f"responses that rewards.correctness failed on (see the log), in no number here: {found.unscored}"


def cells(found: Metrics) -> dict[str, str]:
    """What each column says of one row, by the column's header."""
    return {header: show(found) for header, show in _COLUMNS}


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows that begin with a name, under headers for what follows it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return "\n".join(plain_lines(table))


def plain_lines(table: Table) -> list[str]:
    """The lines of a table as it goes into a job's output: without colours, folds, and empty lines."""
    page = StringIO()
    Console(file=page, width=WIDE_ENOUGH, color_system=None).print(table)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    return [line for line in lines if line]


def _fraction(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _points(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:.1f}"


def _ece(found: Metrics) -> str:
    if found.ece is None:
        return UNDEFINED
    return f"{_points(found.ece)} ±{_points(found.ece_noise_floor)}"


def _count(value: int | None) -> str:
    return UNDEFINED if value is None else str(value)


_COLUMNS: tuple[tuple[str, Callable[[Metrics], str]], ...] = (
    ("accuracy", lambda found: _fraction(found.accuracy)),
    ("best acc.", lambda found: _fraction(found.best_accuracy)),
    ("maj. acc.", lambda found: _fraction(found.majority_accuracy)),
    ("bal. acc.", lambda found: _fraction(found.balanced_accuracy)),
    ("F1", lambda found: _fraction(found.weighted_f1)),
    ("ECE", _ece),
    ("ECE mass", lambda found: _points(found.ece_mass)),
    ("debiased", lambda found: _points(found.ece_debiased)),
    ("smooth", lambda found: _points(found.smooth_ece)),
    ("Brier", lambda found: _fraction(found.brier)),
    ("best Brier", lambda found: _fraction(found.best_brier)),
    ("excess", lambda found: _fraction(found.excess_brier)),
    ("reliab.", lambda found: _fraction(found.reliability)),
    ("resol.", lambda found: _fraction(found.resolution)),
    ("log loss", lambda found: _fraction(found.log_loss)),
    ("AUROC", lambda found: _fraction(found.auroc)),
    ("maj. AUROC", lambda found: _fraction(found.majority_auroc)),
    ("AURC", lambda found: _fraction(found.aurc)),
    ("exc. AURC", lambda found: _fraction(found.excess_aurc)),
    ("at 10%", lambda found: _fraction(found.coverage_at_risk_10)),
    ("malformed", lambda found: _fraction(found.malformed)),
    ("mean c", lambda found: _fraction(found.mean_confidence)),
    ("distinct", lambda found: _count(found.distinct_confidences)),
    ("rank corr.", lambda found: _fraction(found.confidence_share_rank_correlation)),
    ("n", lambda found: _count(found.n)),
)
