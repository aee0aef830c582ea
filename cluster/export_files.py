"""What of a stage's model goes into an export: its files as they are, with what only this project knows written in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import GenerationConfig

from cluster.export_source import Source
from configs.derive import LARGEST_ADAPTER_RANK
from learner.adapter_files import ADAPTER_FOLDER, Adapter, write_adapter
from rollout.built_set import ATTRIBUTION
from rollout.chat import ChatFormat

_GENERATION = "generation_config.json"


def write_files(source: Source, chat: ChatFormat, folder: Path, adapter: Adapter | None) -> None:
    """The whole model, weights and configuration copied byte for byte, or the adapter alone; and all around them."""
    if adapter is None:
        for path in [*source.stage.model.glob("*.safetensors*"), source.stage.model / "config.json"]:
            shutil.copyfile(path, folder / path.name)
    else:
        write_adapter(folder, adapter.tensors, adapter.rank, adapter.alpha, adapter.base)
    chat.save_with_limits(folder)
    _write_generation(source, chat, folder)
    attribution = Path(source.recipe.data.root) / ATTRIBUTION
    if attribution.exists():
        shutil.copyfile(attribution, folder / ATTRIBUTION)


def stage_adapters(source: Source) -> list[Adapter]:
    """The adapter of each stage up to this one.

    Raises ValueError where one has none, or vLLM would not take them together.
    """
    found = []
    for number in range(1, source.number + 1):
        try:
            found.append(Adapter.read(source.run.stage(number).model / ADAPTER_FOLDER))
        except FileNotFoundError as error:
            raise ValueError(
                f"{error}: stage {number} was trained without learner.lora, or by a version of Caliber that kept no "
                "adapters; --form merged has the whole model"
            ) from error
    if (rank := sum(adapter.rank for adapter in found)) > LARGEST_ADAPTER_RANK:
        raise ValueError(
            f"the adapters of {source.number} stages together have rank {rank}, and vLLM takes ranks up to "
            f"{LARGEST_ADAPTER_RANK}: --form merged"
        )
    return found


def _write_generation(source: Source, chat: ChatFormat, folder: Path) -> None:
    """The sampling that the evaluation measured, in place of what the base model came with (top-p, penalties, …)."""
    given = json.loads((source.stage.model / _GENERATION).read_text(encoding="utf-8"))
    tokens = {name: value for name, value in given.items() if name.endswith("_token_id")}
    settings, temperature = source.recipe.evaluation, temperature_of(source)
    sampled = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature > 0 else {}
    GenerationConfig(
        **tokens,
        **sampled,
        do_sample=temperature > 0,
        repetition_penalty=1.0,
        max_new_tokens=settings.response_tokens,
        suppress_tokens=list(chat.barred_token_ids()) or None,
    ).save_pretrained(folder)


def temperature_of(source: Source) -> float:
    """The temperature of the stage's evaluation; 0 is greedy."""
    settings = source.recipe.evaluation
    return settings.temperature if source.states_confidence else settings.stage1_temperature
