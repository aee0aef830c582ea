"""A stage's model as a Hugging Face directory that needs nothing of this project, proven before it gets its name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from transformers import AutoConfig

from cluster.export_check import Checked, ExportDiffers, Question, check_export
from cluster.export_evaluation import read_evaluations
from cluster.export_files import stage_adapters, write_files
from cluster.export_source import Source
from cluster.model_card import Card
from cluster.stages import read_file
from configs.schema import Engine
from learner.adapter_files import Adapter, add_to_weights, stacked
from learner.architecture import model_class
from learner.next_token import load_in_fp32, said_of
from rollout.chat import PLACEHOLDER, ChatFormat, ImageLimits
from rollout.prompts import Prompt

Check = Callable[[Path, str, ChatFormat, Sequence[Question], Engine, Adapter | None], list[Checked]]


class Form(StrEnum):
    """What an export of a run with adapters holds."""

    MERGED = "merged"  # the whole model
    ADAPTER = "adapter"  # what the run added to the model it started from


def export(source: Source, destination: Path, form: Form, check: Check = check_export) -> list[Checked]:
    """Write the export of a stage; returns what transformers and vLLM made of it.

    Raises FileExistsError where there is something, ValueError for what cannot be exported, and ExportDiffers, naming
    where the refused export is left, where a library does not load it or it says something else than the model.
    """
    if destination.exists():
        raise FileExistsError(f"{destination} exists: choose another folder, nothing is overwritten")
    chat = ChatFormat(str(source.stage.model), ImageLimits.of(source.recipe.model, source.recipe.data))
    prompts = _prompts(source)
    evaluated = read_evaluations(source)
    stages = stage_adapters(source) if form is Form.ADAPTER else []
    adapter = stacked(stages) if stages else None
    kind = model_class(AutoConfig.from_pretrained(source.stage.model, trust_remote_code=False)).__name__
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        write_files(source, chat, aside, adapter)
        questions = _questions(source, chat, prompts, stages)
        checked = check(aside, kind, chat, questions, source.recipe.engine, adapter)
        card = Card(destination.name, source, chat, kind, adapter is not None, prompts[-1], evaluated, checked)
        (aside / "README.md").write_text(str(card), encoding="utf-8")
        for one in evaluated:
            if one.diagram is not None:
                (aside / one.diagram_file).write_text(one.diagram, encoding="utf-8")
        aside.chmod(0o755)  # mkdtemp's folder is its owner's alone
        aside.rename(destination)
    except ExportDiffers as error:
        raise ExportDiffers(f"{error}\nThe refused export is left in {aside}") from error
    except BaseException:
        shutil.rmtree(aside)
        raise
    return checked


def _prompts(source: Source) -> list[Prompt]:
    """One with text alone, and for a model that sees one with a picture, of the files that it was evaluated on."""
    files = [*source.recipe.data.evaluation.values()] or [source.recipe.data.stage3]
    found = [prompt for name in files for prompt in read_file(source.recipe, name)]
    pictured = next((prompt for prompt in found if prompt.images), None)
    written = next((prompt for prompt in found if not prompt.images), None) or _without_pictures(found[0])
    return [written] if pictured is None else [written, pictured]


def _without_pictures(prompt: Prompt) -> Prompt:
    messages = tuple(replace(message, text=message.text.replace(PLACEHOLDER, "")) for message in prompt.messages)
    return replace(prompt, messages=messages, images=())


def _questions(
    source: Source, chat: ChatFormat, prompts: Sequence[Prompt], stages: Sequence[Adapter]
) -> list[Question]:
    """What the model says: the stage's own, or its base with the stages' adapters, before anything was rounded."""
    model = load_in_fp32(stages[0].base if stages else str(source.stage.model))
    for adapter in stages:
        add_to_weights(model, adapter)
    kinds = ["picture" if prompt.images else "text" for prompt in prompts]
    return [Question(*asked) for asked in zip(kinds, prompts, said_of(model, chat, prompts), strict=True)]
