"""The folder that `caliber init` writes: a recipe, a scorer of the user's own, and its test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from configs.choices import Correctness, Reference

SCRATCH = "scratch"  # in the place of a model: none, a small one from random weights
OWN = "own"  # in the place of a correctness: scorer.py
_RECIPE = "recipe.yaml"
_FILES = (_RECIPE, "scorer.py", "test_scorer.py")
_TEMPLATES = Path(__file__).with_name("starter_files")

_RIGHT = {
    Correctness.EXACT: "the same text, but for case and white space",
    Correctness.NUMERIC: "the same number, however it is written",
    Correctness.CHOICE: "the same letter of a multiple choice",
}
_AGAINST = {
    Reference.LABEL: ("a label", "the row's label, or the answer that most annotators gave"),
    Reference.ANNOTATOR: ("counts of annotators' votes", "one annotator, drawn by the votes at each visit"),
    Reference.SHARES: ("counts of annotators' votes", "all annotators: the share of them who agree"),
}
_SCRATCH = """\
  # A small Qwen2.5-VL from random weights, for a first try without a GPU. A real one: path: Qwen/Qwen2.5-VL-3B-Instruct
  scratch: {vocabulary_size: 1024}"""
_PIXELS_PER_TOKEN = 28 * 28  # of a picture in Qwen2.5-VL
_ON_CPUS = """\
# Sizes for two CPU cores.
learner: {threads_per_rank: 1, precision: fp32, tokens_per_micro_batch: 4096}
engine: {threads_per_worker: 1, cpus_per_worker: 0.75, precision: fp32, tokens_per_sequence: 256, kv_cache_gib: 0.25}"""
_ON_GPUS = """\
# $gpus GPUs: $ranks train, $workers sample.
learner: {ranks: $ranks, gpus_per_rank: 1, zero_stage: 3, precision: bf16, gradient_checkpointing: true}
engine: {workers: $workers, gpus_per_worker: 1, precision: bf16, tokens_per_sequence: 4096, enforce_eager: false}"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the recipe is to be."""

    name: str
    model: str  # SCRATCH, or a Hugging Face directory or hub id
    data: str  # folder
    correctness: str  # one of Correctness but judge, or OWN
    reference: Reference
    gpus: int  # 0: two CPU cores

    def __post_init__(self) -> None:
        if self.gpus < 0 or self.gpus == 1:
            raise ValueError(f"got {self.gpus} GPUs, expected 0, or at least 2: one trains while another samples")


def refuse_full(folder: Path) -> None:
    """Raises ValueError where there is anything that a starter's files would be mixed with."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder, nothing is written over")


def write_starter(folder: Path, answers: Answers) -> list[Path]:
    """Write the folder's files; returns them. Raises ValueError where it holds anything."""
    refuse_full(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: (_TEMPLATES / f"{name}.in").read_text(encoding="utf-8") for name in _FILES}
    texts[_RECIPE] = Template(texts[_RECIPE]).substitute(_words(answers))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _words(answers: Answers) -> Mapping[str, str]:
    scratch = answers.model == SCRATCH
    truth, against = _AGAINST[answers.reference]
    right = (
        "what the class in scorer.py says" if answers.correctness == OWN else _RIGHT[Correctness(answers.correctness)]
    )
    ranks = answers.gpus // 2
    picture_tokens = 1280 if answers.gpus else 64  # of 4096 and of 256, beside the text and the response
    on_gpus = Template(_ON_GPUS).substitute(gpus=answers.gpus, ranks=ranks, workers=answers.gpus - ranks)
    return {
        "name": _quoted(answers.name),
        "data": _quoted(answers.data),
        "picture_tokens": str(picture_tokens),
        "picture_pixels": str(picture_tokens * _PIXELS_PER_TOKEN),
        "model": _SCRATCH if scratch else f"  path: {_quoted(answers.model)}",
        "truth": truth,
        "correctness": "scorer:Scorer" if answers.correctness == OWN else answers.correctness,
        "what_is_right": right,
        "reference": answers.reference,
        "against": against,
        "hardware": on_gpus if answers.gpus else _ON_CPUS,
        "sft_steps": "300",
        "sft_rate": "1e-3" if scratch else "1e-5",
        "rl_steps": "100",
        "rl_rate": "1e-4" if scratch else "1e-6",
        "response_tokens": "1024" if answers.gpus else "96",
    }


def _quoted(text: str) -> str:
    """Text as a value: as JSON writes it, which YAML reads."""
    return json.dumps(text, ensure_ascii=False)
