"""The model that stage 1 starts from: a directory that is there, or one that is made where it is not."""

from __future__ import annotations

from pathlib import Path

from cluster.gguf_file import gguf_file
from cluster.run_folder import RunFolder, written_aside
from cluster.stages import read_file
from configs.schema import Recipe, ScratchModel
from learner.gguf_model import unpack_gguf
from learner.scratch import build_scratch_model


def starting_model(recipe: Recipe) -> str:
    """Its directory, absolute: `model.path`, or the run's own, in which a model is built or unpacked once.

    Where there is no such directory, `model.path` is a hub id.
    """
    if recipe.model.path is not None:
        path = Path(recipe.model.path)  # actors have another working folder than the command
        return str(path.absolute()) if path.exists() else recipe.model.path
    folder = RunFolder.of(recipe).starting_model
    if not folder.exists():
        with written_aside(folder) as aside:
            made = _made(recipe, aside)
        print(f"{made}, in {folder}")
    return str(folder)


def _made(recipe: Recipe, folder: Path) -> str:
    """Write the model into the folder; returns what was done."""
    if recipe.model.gguf is not None:
        file = gguf_file(recipe.model.gguf)
        size = unpack_gguf(file, folder, recipe.learner.precision)
        return f"unpacked the {size / 1e6:.1f}M parameters of {file.name}"
    assert recipe.model.scratch is not None
    size = _build(recipe, recipe.model.scratch, folder)
    return f"built a Qwen2.5-VL of {size / 1e6:.1f}M parameters from scratch"


def _build(recipe: Recipe, scratch: ScratchModel, folder: Path) -> int:
    prompts = read_file(recipe, recipe.data.stage1, need_response=True, require_reference=False)
    roles = ["system\n", "user\n", "assistant\n"]  # turns of the chat template
    texts = roles + [text for p in prompts for text in (*(m.text for m in p.messages), p.response or "")]
    tags = ("think", "answer", "confidence", *recipe.response.reasoning_elements)
    return build_scratch_model(scratch, texts, tags, folder, recipe.seed)
