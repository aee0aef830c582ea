"""A run's folder as its jobs leave it: stages with a tiny model of random weights, a log, and an evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig

from cluster.digests import evaluation_digest, training_digest
from cluster.predictions import PredictionRow, write_predictions
from cluster.run_folder import RunFolder
from configs.load import load_recipe, write_resolved
from configs.schema import Recipe
from learner.adapter_files import ADAPTER_FOLDER, write_adapter
from learner.architecture import model_class
from learner.lora import adapter_parameters, add_adapters, mergeable_parameters

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
CANDIDATES = ("positive", "neutral", "negative")
QUESTION = "What feeling does this picture carry? Choose one of: positive, neutral, negative."
LIMITS = ["model.min_image_pixels=3136", "model.max_image_pixels=7056"]  # not the processor's own
RESPONSES = [
    "<think>The face smiles.</think><answer>positive</answer><confidence>0.80</confidence>",
    "<think>The face smiles.</think> <answer> Neutral</answer>\n<confidence>0.35</confidence>",
    "<think>The face smiles.</think><answer>positive</answer><confidence>surely</confidence>",
    "<think>The face smiles.<answer>positive</answer><confidence>0.80</confidence>",
]


def finished_run(root: Path, tiny_model: Path, *overrides: str, stages: int = 3) -> Recipe:
    """Its recipe; the run is in `root/run`, the data in `root/data`. What it learnt with adapters is random too."""
    own = [f"output={root}/run", f"data.root={root}/data", "data.emoji=null", "data.evaluation.unseen=null"]
    form = ["response.reasoning_elements=[]", "evaluation.samples_per_prompt=1", "rl.response_tokens=24"]
    engine = ["engine.tokens_per_sequence=512", "evaluation.response_tokens=24"]
    recipe = load_recipe(DEMO, [*own, *form, *engine, *LIMITS, *overrides])
    run = RunFolder.of(recipe)
    write_resolved(recipe, run.recipe)
    _write_data(root / "data")
    shutil.copytree(tiny_model, run.starting_model)
    for number in range(1, stages + 1):
        stage, digest = run.stage(number), training_digest(recipe, number)
        stage.path.mkdir(exist_ok=True)
        shutil.copytree(tiny_model, stage.model)
        if recipe.learner.lora is not None:
            _learn(recipe, number)
        stage.finish("training", digest)
        for name in recipe.data.evaluation:
            rows = [_row(n) for n in range(12)]
            write_predictions(stage.evaluation(name) / "predictions.jsonl", rows)
        stage.finish("evaluation", evaluation_digest(recipe, number))
    if stages == 3:
        _write_log(run.stage(3).path / "log.jsonl")
    return recipe


def _learn(recipe: Recipe, number: int) -> None:
    """Adapters on the model of the stage before, kept apart, and merged into this stage's."""
    run, lora = RunFolder.of(recipe), recipe.learner.lora
    assert lora is not None
    base = run.starting_model if number == 1 else run.stage(number - 1).model
    kind = model_class(AutoConfig.from_pretrained(base))
    model = kind.from_pretrained(base, dtype=torch.float32)
    add_adapters(model, lora)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for found in adapter_parameters(model):
            found.parameter.copy_(0.1 * torch.randn(found.parameter.shape, generator=generator))
    plain = kind.from_pretrained(base, dtype=torch.float32)
    plain.load_state_dict({m.name: m.merged() for m in mergeable_parameters(model)}, strict=False)
    folder = run.stage(number).model
    plain.save_pretrained(folder)
    tensors = {m.name: m.merged() for m in adapter_parameters(model)}
    write_adapter(folder / ADAPTER_FOLDER, tensors, lora.rank, lora.alpha_taken, str(base))


def _write_data(folder: Path) -> None:
    folder.mkdir()
    rows = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (100, 150, 3), dtype=np.uint8)  # more than is allowed
        Image.fromarray(pixels).save(folder / f"{number}.png")
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        rows.append({"id": f"p{number}", "content": content, "images": [f"{number}.png"]})
    rows.append({"id": "p3", "content": QUESTION, "images": []})
    lines = [
        {
            "id": row["id"],
            "messages": [{"role": "user", "content": row["content"]}],
            "images": row["images"],
            "candidates": CANDIDATES,
            "reference": {"label": "positive"},
        }
        for row in rows
    ]
    (folder / "seen.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "ATTRIBUTION.txt").write_text("Whose work it is.\n")


def _row(number: int) -> PredictionRow:
    response = RESPONSES[number % len(RESPONSES)]
    label = "positive" if number < 7 else "neutral"
    return PredictionRow(f"p{number}", "emoji", CANDIDATES, label, response=response)


def _write_log(file: Path) -> None:
    steps = []
    for step in range(1, 7):
        weights = {"correctness": 1.0, "calibration": 1.0 if step < 4 else 0.5, "format": 4.0}
        steps.append({"step": step, **{f"weight/{name}": weight for name, weight in weights.items()}})
    file.write_text("".join(json.dumps(step) + "\n" for step in steps))
