"""What two real ranks under ZeRO-3 save of a model with adapters: it holds them merged, and has them apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from cluster.learner_actors import SftActor
from cluster.learners import LearnerGroup
from configs.schema import Lora
from learner.adapter_files import ADAPTER_FOLDER, Adapter, add_to_weights
from rollout.chat import ImageLimits
from tests.integration.test_learner_checkpoints import LEARNER, PROMPTS, STAGE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ADAPTED = LEARNER.model_copy(update={"lora": Lora(rank=2, alpha=3)})


def test_the_adapter_that_is_kept_is_what_is_merged(own_ray: None, tiny_model: Path, tmp_path: Path) -> None:
    async def job() -> None:
        arguments = (str(tiny_model), STAGE, ADAPTED, PROMPTS, ImageLimits(), 0)
        learners = await LearnerGroup.start(SftActor, ADAPTED, arguments, 300.0)
        try:
            for step in range(2):
                await learners.call("train", step)
            await learners.call("save_model", str(tmp_path))
        finally:
            learners.close()

    asyncio.run(job())

    adapter = Adapter.read(tmp_path / ADAPTER_FOLDER)
    base = AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.float32)
    before = {name: weights.clone() for name, weights in base.state_dict().items()}
    add_to_weights(base, adapter)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    assert (adapter.rank, adapter.alpha, adapter.base) == (2, 3, str(tiny_model))
    torch.testing.assert_close(base.state_dict(), merged, rtol=1e-5, atol=1e-6)
    assert any(not before[name].equal(merged[name]) for name in before)
