from __future__ import annotations

import asyncio
from functools import cache

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rollout.engine import Engine, EngineDied, EngineError, EngineOutput, SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.simulated import END_TOKEN, SimulatedEngine, Simulation
from rollout.trajectory import FinishReason, Group, VersionSpan
from rollout.worker import Visit, response_ids, sample_group
from tests.unit import virtual_time

END = "<|im_end|>"
BYTES = 256
FIXED = Simulation(
    median_tokens=64, length_spread=0, tokens_per_chunk=16, seconds_per_token=1 / 16, vocabulary=BYTES + 1
)
UNRELIABLE = Simulation(
    median_tokens=64, length_spread=0, seconds_per_token=1 / 16, failure_probability=0.3, vocabulary=BYTES + 1
)
LIMIT = SamplingSettings(temperature=1.0, response_tokens=512)
PROMPT = Prompt("p7", "emoji", (Message("user", "<image>How?"),), images=("/data/1.png",), label="joy")


@cache
def tokenizer() -> Tokenizer:
    """The end token and the bytes, a token each: whatever is sampled is text, mostly broken characters."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({END: END_TOKEN, **{name: id_ for id_, name in enumerate(bytes_, 1)}}, []))
    made.add_special_tokens([AddedToken(END, special=True)])
    made.decoder = decoders.ByteLevel()
    return made


def visit(samples: int) -> Visit:
    return Visit(group_id=3, prompt=PROMPT, target="joy", samples=samples, admitted=12.5)


async def sampled(engine: Engine, samples: int = 4, sampling: SamplingSettings = LIMIT) -> Group:
    return await sample_group(engine, tokenizer(), visit(samples), sampling, "rollout-0")


def group_of(simulation: Simulation, samples: int = 4, sampling: SamplingSettings = LIMIT) -> Group:
    return virtual_time.run(sampled(SimulatedEngine(simulation, seed=0), samples, sampling))


async def generated(engine: Engine, samples: int = 4) -> list[EngineOutput | BaseException]:
    """What the engine gives for the same visit, failures included."""
    return await asyncio.gather(*(engine.generate(PROMPT, LIMIT) for _ in range(samples)), return_exceptions=True)


def test_a_group_says_which_visit_of_which_prompt_it_is_and_who_sampled_it() -> None:
    group = group_of(FIXED)

    assert (group.group_id, group.prompt_id, group.images) == (3, "p7", ("/data/1.png",))
    assert (group.target, group.admitted, group.worker) == ("joy", 12.5, "rollout-0")


def test_every_sample_is_one_output_of_the_engine_not_yet_scored() -> None:
    group = group_of(FIXED)
    outputs = virtual_time.run(generated(SimulatedEngine(FIXED, seed=0)))

    assert len(group.trajectories) == 4
    for trajectory, output in zip(group.trajectories, outputs, strict=True):
        assert isinstance(output, EngineOutput)
        assert np.array_equal(group.prompt_tokens, output.prompt_tokens)
        assert np.array_equal(trajectory.sample.tokens, output.tokens)
        assert np.array_equal(trajectory.sample.logprobs, output.logprobs)
        assert trajectory.sample.version_spans == output.version_spans
        assert trajectory.sample.started <= trajectory.sample.finished
        assert (trajectory.score, trajectory.failure) == (None, None)


def test_the_text_of_a_response_that_stopped_leaves_the_end_token_out() -> None:
    for trajectory in group_of(FIXED).trajectories:
        sample = trajectory.sample

        assert sample.finish_reason is FinishReason.STOP
        assert sample.tokens[-1] == END_TOKEN
        assert sample.text == tokenizer().decode(sample.tokens[:-1].tolist(), skip_special_tokens=False)
        assert END not in sample.text


def test_the_text_of_a_truncated_response_holds_its_last_token() -> None:
    for trajectory in group_of(FIXED, sampling=SamplingSettings(1.0, response_tokens=40)).trajectories:
        sample = trajectory.sample

        assert sample.finish_reason is FinishReason.LENGTH
        assert len(sample.tokens) == len(response_ids(sample)) == 40
        assert sample.text == tokenizer().decode(sample.tokens.tolist(), skip_special_tokens=False)


def test_a_response_that_is_the_end_token_alone_is_empty_text() -> None:
    (trajectory,) = group_of(Simulation(median_tokens=1, length_spread=0), samples=1).trajectories

    assert trajectory.sample.tokens.tolist() == [END_TOKEN]
    assert response_ids(trajectory.sample) == []
    assert trajectory.sample.text == ""


def test_all_samples_are_asked_for_at_once() -> None:
    async def job() -> float:
        await sampled(SimulatedEngine(FIXED, seed=0), samples=8)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(job()) == pytest.approx(4.0)  # 64 tokens, whatever the number of samples


def test_a_group_sampled_across_an_update_tells_both_versions() -> None:
    async def job() -> Group:
        engine = SimulatedEngine(FIXED, seed=0, version=5)
        sampling = asyncio.create_task(sampled(engine))
        await asyncio.sleep(1.5)
        await engine.update_weights(6, {})
        return await sampling

    group = virtual_time.run(job())

    assert [t.sample.version_spans for t in group.trajectories] == [(VersionSpan(5, 0, 16), VersionSpan(6, 16, 64))] * 4
    assert group.oldest_version == 5


def test_the_first_failure_ends_the_visit_at_once_and_cancels_the_other_samples() -> None:
    results = virtual_time.run(generated(SimulatedEngine(UNRELIABLE, seed=1)))
    failures = {str(result) for result in results if isinstance(result, EngineError)}
    assert 0 < len(failures) < len(results)

    async def job() -> tuple[str, float, int]:
        with pytest.raises(EngineError) as raised:
            await sampled(SimulatedEngine(UNRELIABLE, seed=1))
        return str(raised.value), asyncio.get_running_loop().time(), len(asyncio.all_tasks())

    message, seconds, tasks = virtual_time.run(job())

    assert message in failures
    assert seconds < 4.0  # when the others would have been done
    assert tasks == 1  # this one


class DeadEngine(SimulatedEngine):
    """Has lost its process."""

    async def generate(self, prompt: Prompt, sampling: SamplingSettings) -> EngineOutput:
        raise EngineDied(f"gone before {prompt.prompt_id}") from OSError("no memory")


def test_the_death_of_the_engine_comes_as_itself_with_its_cause() -> None:
    with pytest.raises(EngineDied, match="gone before p7") as raised:
        virtual_time.run(sampled(DeadEngine(FIXED, seed=0)))

    assert type(raised.value) is EngineDied
    assert isinstance(raised.value.__cause__, OSError)


def test_a_cancelled_visit_cancels_its_samples() -> None:
    async def job() -> int:
        visiting = asyncio.create_task(sampled(SimulatedEngine(FIXED, seed=0)))
        await asyncio.sleep(1.5)
        visiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visiting
        return len(asyncio.all_tasks())

    assert virtual_time.run(job()) == 1  # this one
