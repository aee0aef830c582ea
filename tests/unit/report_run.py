"""A run's folder as a finished stage 3 leaves it, made without one: for the tests of what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.calibration_by_lag import CalibrationByLag
from cluster.checkpoints import CheckpointFolder
from cluster.live_weights import reweight
from cluster.metrics_files import write_baselines, write_metrics
from cluster.predictions import PredictionRow, write_predictions
from cluster.records import record_of
from cluster.run_folder import RunFolder
from cluster.score import outcomes
from configs.load import load_recipe, write_resolved
from configs.schema import Recipe
from rewards.baselines import baselines
from rewards.tasks import by_task
from rollout.rollout_file import RolloutWriter
from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
CANDIDATES = ("joy", "fear", "calm")
QUESTION, SEEN_QUESTION = "Which mood?", "What is felt here?"  # in stage 3's file, and in that of the evaluation
EVIL = "</script><img src=x onerror=\"document.title='owned'\"><!-- \N{GRINNING FACE} "
CHANGED_AT = 6  # the step from which on calibration weighs half


def made_run(folder: Path, *, groups: int = 40, samples: int = 4, prompts: int = 10, seed: int = 0) -> Path:
    """Write one of ten steps. Responses 0 to 3 of group 0 are one for each filter."""
    data, run = folder / "data", RunFolder(folder / "run")
    recipe = load_recipe(
        DEMO,
        [
            f"output={run.path}",
            f"data.root={data}",
            "response.reasoning_elements=[]",
            "rl.steps=10",
        ],
    )
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"evaluation": {"seen": "seen.jsonl"}})})
    write_resolved(recipe, run.recipe)
    reweight(run, ["calibration=0.5"])
    _write_data(data, prompts)
    rng = np.random.default_rng(seed)
    made = [_group(number, samples, prompts, data, rng) for number in range(groups)]
    with RolloutWriter(run.stage(3).rollouts / "reward-0.rollouts") as file:
        for group in made:
            file.append(group)
    _write_log(run)
    lags = CalibrationByLag()
    lags.step([record_of(group) for group in made], version=10)
    saved = CheckpointFolder(run.stage(3).checkpoints, kept=1)
    saved.begin(10)
    saved.commit(10, {"calibration_by_lag": lags.state_dict()}, {})
    for stage in (1, 2, 3):
        _evaluate(run, stage, recipe, prompts, rng)
    return run.path


def response(answer: str, confidence: float | None, reasoning: str = "it smiles") -> str:
    stated = "" if confidence is None else f"<confidence>{confidence:.2f}</confidence>"
    return f"<think>{reasoning}</think><answer>{answer}</answer>{stated}"


def _write_data(data: Path, prompts: int) -> None:
    (data / "pictures").mkdir(parents=True)
    for number in range(min(prompts, 5)):
        Image.new("RGB", (300, 200), (50 * number, 90, 120)).save(data / "pictures" / f"{number}.png")
    voted, labelled = {"counts": {"joy": 3, "fear": 1}}, {"label": "joy"}
    # The same ids in both: they are unique in a file alone.
    for name, question, first, reference in (("stage3", QUESTION, 0, voted), ("seen", SEEN_QUESTION, 1, labelled)):
        rows = [
            {
                "id": f"p{number}",
                "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
                "images": [f"pictures/{(number + first) % min(prompts, 5)}.png"],
                "candidates": CANDIDATES,
                "reference": reference,
            }
            for number in range(prompts)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _group(number: int, samples: int, prompts: int, data: Path, rng: np.random.Generator) -> Group:
    """Versions 0 to 9 by number: a third of the groups were sampled under two of them."""
    version, name = number % 10, f"p{number % prompts}"
    if number == 0:
        said = [("fear", 0.95, EVIL), ("joy", 0.1, "so it seems"), ("joy", None, "cut"), ("fear", 0.0, "on purpose")]
        said += [("joy", 0.6, "plain"), ("joy", 0.6, "plain")]
    else:
        answers = [str(answer) for answer in rng.choice(CANDIDATES, samples, p=[0.6, 0.2, 0.2])]
        said = [(answer, float(rng.choice([0.3, 0.5, 0.7])), f"thought {number}") for answer in answers]
    return Group(
        group_id=number,
        prompt_id=name,
        images=(str(data / "pictures" / f"{number % prompts % 5}.png"),),
        prompt_tokens=np.array([1, 2, 3], np.int32),
        target="joy",
        admitted=float(number),
        worker="rollout-0",
        trajectories=tuple(_trajectory(*one, version, mixed=number % 3 == 1) for one in said),
    )


def _trajectory(answer: str, confidence: float | None, reasoning: str, version: int, *, mixed: bool) -> Trajectory:
    spans = (VersionSpan(version, 0, 2), VersionSpan(version + 1, 2, 4)) if mixed else (VersionSpan(version, 0, 4),)
    sample = Sample(
        tokens=np.array([5, 6, 7, 0], np.int32),
        logprobs=np.zeros(4, np.float32),
        version_spans=spans,
        finish_reason=FinishReason.STOP,
        text=response(answer, confidence, reasoning),
        started=1.0,
        finished=2.0,
    )
    if confidence is None:
        parts = {"correctness": 0.0, "calibration": -1.0, "format": 0.0}
        return Trajectory(sample, Score(None, None, "missing_tag", None, None, parts, None, None, None))
    correct = float(answer == "joy")
    parts = {"correctness": correct, "calibration": -((confidence - correct) ** 2), "format": 1.0}
    return Trajectory(
        sample, Score(answer, confidence, None, correct, correct, parts, Span(0, 1), Span(1, 2), Span(2, 3))
    )


def _write_log(run: RunFolder) -> None:
    for stage in (1, 2):
        lines = [{"step": step, "loss": 1 / step, "evaluation_loss": 1.1 / step} for step in (1, 2, 3)]
        _write_lines(run.stage(stage).path / "log.jsonl", lines)
    _write_lines(run.stage(3).path / "log.jsonl", list(_rl_lines()))


def _rl_lines() -> Iterator[dict[str, float | None]]:
    for step in range(1, 11):
        weights = {"correctness": 1.0, "calibration": 0.5 if step >= CHANGED_AT else 1.0, "format": 4.0}
        metrics = {"reward": 3 + step / 10, "accuracy": 0.5, "confidence": 0.6, "ece": 0.1, "brier": 0.2, "lag_mean": 1}
        yield {"step": step, **metrics, **{f"weight/{name}": weight for name, weight in weights.items()}}


def _write_lines(path: Path, lines: list[dict[str, float | None]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _evaluate(run: RunFolder, stage: int, recipe: Recipe, prompts: int, rng: np.random.Generator) -> None:
    rows = [
        PredictionRow(
            prompt_id=f"p{number}",
            task="mood",
            candidates=CANDIDATES,
            label="joy",
            response=response(str(rng.choice(CANDIDATES)), float(rng.choice([0.3, 0.6, 0.9])) if stage > 1 else None),
            answer_probability=0.5,
        )
        for number in range(prompts)
        for _ in range(4)
    ]
    folder = run.stage(stage).evaluation("seen")
    write_predictions(folder / "predictions.jsonl", rows)
    held = outcomes(rows, recipe.response, 1, recipe.evaluation.seed, require_confidence=stage > 1)
    write_metrics(folder / "metrics.json", by_task(held))
    write_baselines(folder, baselines(held))
