"""The parts of a report on one run: its evaluations, its training, its calibration by policy lag."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from cluster.live_weights import shown
from cluster.metrics_table import unscored
from cluster.report.curves import RL_PANELS, SFT_PANELS, curves
from cluster.report.evaluations import STAGES
from cluster.report.lag_chart import lag_chart
from cluster.report.markup import figure, node
from cluster.report.reliability_chart import reliability_chart
from cluster.report.risk_chart import risk_chart
from cluster.report.run_data import RunData
from cluster.report.stage_table import stage_table
from rewards.metrics import Metrics
from rewards.reliability import reliability
from rewards.safety import unsafe


def state(run: RunData) -> Element:
    """How far the run is, in what mix, and what is wrong with that."""
    rl, log = run.recipe.rl, run.logs[3]
    done = int(log[-1]["step"] or 0) if log else 0
    lines = [
        node("p", {"class": "path"}, str(run.path)),
        node(
            "p",
            None,
            f"Stage 3: step {done:,} of {rl.steps:,}, {len(run.rollouts):,} responses. "
            f"Reward mix: {shown(run.mixes.at(min(done + 1, rl.steps)))}; credit {run.recipe.rewards.credit}.",
        ),
    ]
    lines += [node("p", {"class": "warning"}, f"Unsafe reward mix, {message}") for message in _unsafe(run)]
    return node("div", None, *lines)


def evaluation_section(run: RunData) -> Iterator[Element]:
    """Diagrams of each stage with confidences, risk against coverage, and the table of stages and baselines."""
    names = list(dict.fromkeys(one.name for one in run.evaluations))
    if not names:
        yield node("p", None, "No stage has been evaluated yet.")
        return
    for name in names:
        own = [one for one in run.evaluations if one.name == name]
        held = [(one, one.outcomes) for one in own if one.outcomes is not None and one.outcomes.confident.any()]
        diagrams = [
            figure(
                f"Stage {one.stage}, {name}",
                _numbers(one.metrics),
                reliability_chart(reliability(of, run.recipe.evaluation.bins)),
            )
            for one, of in held
        ]
        risks = {f"stage {one.stage}": (of, f"s{one.stage}") for one, of in held}
        if risks:
            diagrams.append(figure(f"Risk by coverage, {name}", "lower is better", risk_chart(risks)))
        yield node("div", {"class": "grid"}, *diagrams)
    for why in dict.fromkeys(one.unjudged for one in run.evaluations if one.unjudged is not None):
        yield node("p", {"class": "note"}, f"There are no diagrams and no intervals: {why}.")
    for one in run.evaluations:
        if one.metrics.unscored:
            yield node("p", {"class": "note"}, f"{one.title}: {unscored(one.metrics)}.")
    yield stage_table(run.evaluations)


def training_section(run: RunData) -> Iterator[Element]:
    """All curves of stage 3, changes of the mix numbered, then the losses of stages 1 and 2."""
    changes = run.mixes.changes
    if changes:
        items = [node("li", None, f"step {change.step}: {change.shown}") for change in changes]
        yield node("p", None, "Changes of the reward mix, marked in every chart:")
        yield node("ol", {"class": "changes"}, *items)
    drawn = [(panel, curves(panel, run.logs[3], changes)) for panel in RL_PANELS if run.logs[3]]
    losses = [
        (f"{panel.title}, stage {stage}", panel.unit, curves(panel, run.logs[stage], ()))
        for stage in STAGES[:2]
        for panel in SFT_PANELS
        if run.logs[stage]
    ]
    charts = [(panel.title, panel.unit, chart) for panel, chart in drawn] + losses
    if not charts:
        yield node("p", None, "No stage has logged a step yet.")
        return
    figures = [figure(title, unit, chart) for title, unit, chart in charts if chart is not None]
    yield node("div", {"class": "grid small"}, *figures)


def lag_section(run: RunData) -> Iterator[Element]:
    """What stage 3 trained on, by the weight versions between a confidence and its step."""
    if run.lags is None or not (rows := run.lags[1].rows()):
        yield node("p", None, "No checkpoint of stage 3 yet: the counts are kept there.")
        return
    step, _ = run.lags
    yield figure(
        "Confidence and accuracy by policy lag",
        f"up to step {step}; two versions: new weights came between answer and confidence",
        lag_chart(rows),
    )


def _unsafe(run: RunData) -> Iterator[str]:
    """What is wrong with each mix that steps were trained with: the recipe's weights need not be among them."""
    for span in run.mixes.spans(run.recipe.rl.steps):
        mix = run.recipe.rewards.model_copy(update={"weights": span.weights})
        yield from (f"{span.shown} ({shown(span.weights)}): {message}" for message in unsafe(mix))


def _numbers(metrics: Metrics) -> str:
    """The line under a diagram's title."""
    if metrics.ece is None or metrics.ece_noise_floor is None or metrics.brier is None or metrics.accuracy is None:
        return f"n {metrics.n:,}"
    ece, floor = 100 * metrics.ece, 100 * metrics.ece_noise_floor
    return f"ECE {ece:.1f} ±{floor:.1f} · Brier {metrics.brier:.3f} · accuracy {metrics.accuracy:.3f}"
