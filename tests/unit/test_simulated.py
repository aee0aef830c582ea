from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.engine import Engine, EngineDied, EngineError, EngineOutput, SamplingSettings
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.simulated import END_TOKEN, SimulatedEngine, Simulation, checksum_of, spread_for
from rollout.trajectory import FinishReason, VersionSpan
from tests.unit import virtual_time

FIXED = Simulation(median_tokens=64, length_spread=0, tokens_per_chunk=16, seconds_per_token=1 / 16)
LIMIT = SamplingSettings(temperature=1.0, response_tokens=512)
WEIGHTS = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}


def prompt(name: str = "p") -> Prompt:
    return Prompt(prompt_id=name, task="emoji", messages=(Message("user", "How?"),))


def generate_many(engine: Engine, count: int, sampling: SamplingSettings = LIMIT) -> list[EngineOutput]:
    async def main() -> list[EngineOutput]:
        return await asyncio.gather(*(engine.generate(prompt(), sampling) for _ in range(count)))

    return virtual_time.run(main())


def test_a_response_has_a_logprob_for_every_token_and_ends_with_the_end_token() -> None:
    (output,) = generate_many(SimulatedEngine(FIXED, seed=0), 1)

    assert output.tokens.dtype == np.int32
    assert output.logprobs.dtype == np.float32
    assert len(output.tokens) == len(output.logprobs) == 64
    assert (output.logprobs <= 0).all()
    assert output.tokens[-1] == END_TOKEN
    assert (output.tokens[:-1] != END_TOKEN).all()
    assert output.finish_reason is FinishReason.STOP
    assert output.version_spans == (VersionSpan(0, 0, 64),)


def test_a_response_over_the_limit_is_cut_and_has_no_end_token() -> None:
    sampling = SamplingSettings(temperature=1.0, response_tokens=40)

    (output,) = generate_many(SimulatedEngine(FIXED, seed=0), 1, sampling)

    assert len(output.tokens) == 40
    assert output.finish_reason is FinishReason.LENGTH
    assert END_TOKEN not in output.tokens


def test_an_update_in_flight_splits_the_versions_and_keeps_the_tokens() -> None:
    async def main() -> tuple[EngineOutput, str]:
        engine = SimulatedEngine(FIXED, seed=0)
        running = asyncio.create_task(engine.generate(prompt(), LIMIT))
        await asyncio.sleep(1.5)
        checksum = await engine.update_weights(3, WEIGHTS)
        return await running, checksum

    output, checksum = virtual_time.run(main())
    (undisturbed,) = generate_many(SimulatedEngine(FIXED, seed=0), 1)

    assert output.version_spans == (VersionSpan(0, 0, 16), VersionSpan(3, 16, 64))
    assert np.array_equal(output.tokens, undisturbed.tokens)
    assert checksum == checksum_of(WEIGHTS)


def test_requests_pause_for_as_long_as_an_update_takes() -> None:
    slow = replace(FIXED, seconds_per_update=10.0)

    async def main() -> float:
        engine = SimulatedEngine(slow, seed=0)
        running = asyncio.create_task(engine.generate(prompt(), LIMIT))
        await asyncio.sleep(1.5)
        await engine.update_weights(1, WEIGHTS)
        await running
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(11.5 + 2.0)  # the chunk under way is done by the end


def test_engines_give_a_probe_the_same_under_one_version_and_nothing_where_another_comes_under_it() -> None:
    probe = Probe(prompt(), np.array([3, 4], np.int32))

    async def main() -> list[NDArray[np.float32] | None]:
        engine, other = SimulatedEngine(FIXED, seed=0), SimulatedEngine(FIXED, seed=1)
        found = [await engine.logprobs(probe, 0), await other.logprobs(probe, 0), await engine.logprobs(probe, 1)]
        running = asyncio.create_task(engine.logprobs(probe, 0))
        await asyncio.sleep(0)
        await engine.update_weights(1, WEIGHTS)
        found += [await running, await engine.logprobs(probe, 1)]
        await engine.close()
        with pytest.raises(EngineDied, match="before it had scored prompt 'p'"):
            await engine.logprobs(probe, 1)
        return found

    first, same, too_early, under_it, second = virtual_time.run(main())

    assert first is not None and same is not None and second is not None
    assert too_early is under_it is None
    assert len(first) == 2
    assert first.tolist() == same.tolist() != second.tolist()


def test_a_version_that_is_not_newer_is_refused() -> None:
    async def main() -> None:
        engine = SimulatedEngine(FIXED, seed=0, version=2)
        with pytest.raises(ValueError, match="got weight version 2, expected one newer than 2"):
            await engine.update_weights(2, WEIGHTS)

    virtual_time.run(main())


def test_responses_depend_on_the_seeds_and_the_prompt_alone() -> None:
    first = generate_many(SimulatedEngine(FIXED, seed=5), 3)
    again = generate_many(SimulatedEngine(FIXED, seed=5), 3)
    other = generate_many(SimulatedEngine(FIXED, seed=6), 3)
    seeded = [SamplingSettings(1.0, 512, seed=9)] * 2

    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].tokens, first[1].tokens)
    assert not np.array_equal(first[0].tokens, other[0].tokens)
    one, two = (generate_many(SimulatedEngine(FIXED, seed=5), 2, sampling) for sampling in seeded)
    assert np.array_equal(one[0].tokens, two[1].tokens)


def test_responses_do_not_depend_on_what_the_engine_sampled_before() -> None:
    names = [f"p{number}" for number in range(20)]

    async def main() -> list[tuple[EngineOutput, EngineOutput]]:
        busy = SimulatedEngine(FIXED, seed=5)
        fresh = [SimulatedEngine(FIXED, seed=5) for _ in names]
        return [
            (await busy.generate(prompt(name), LIMIT), await engine.generate(prompt(name), LIMIT))
            for name, engine in zip(names, fresh, strict=True)
        ]

    for after, alone in virtual_time.run(main()):
        assert np.array_equal(after.tokens, alone.tokens)
        assert np.array_equal(after.logprobs, alone.logprobs)


def test_lengths_have_a_long_tail() -> None:
    engine = SimulatedEngine(Simulation(median_tokens=64, length_spread=0.8), seed=0)
    sampling = SamplingSettings(temperature=1.0, response_tokens=10_000)

    lengths = [len(output.tokens) for output in generate_many(engine, 400, sampling)]

    assert np.median(lengths) == pytest.approx(64, rel=0.2)
    assert np.quantile(lengths, 0.99) > 4 * np.median(lengths)


def test_a_tail_may_be_asked_for_by_its_99th_percentile() -> None:
    engine = SimulatedEngine(Simulation(median_tokens=20, length_spread=spread_for(20)), seed=0)

    lengths = [len(output.tokens) for output in generate_many(engine, 4000, SamplingSettings(1.0, 100_000))]

    assert np.quantile(lengths, 0.99) / np.median(lengths) == pytest.approx(20, rel=0.2)


def test_sequences_beyond_what_an_engine_takes_at_once_wait_their_turn() -> None:
    async def main() -> float:
        engine = SimulatedEngine(replace(FIXED, sequences_at_once=2), seed=0)
        await asyncio.gather(*(engine.generate(prompt(), LIMIT) for _ in range(5)))
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(3 * 4.0)  # 64 tokens take 4 s


def test_who_finds_no_room_for_keys_and_values_is_put_back_and_goes_on_when_there_is() -> None:
    async def main() -> tuple[list[tuple[float, int]], Occupancy, Occupancy]:
        engine = SimulatedEngine(replace(FIXED, kv_tokens=100), seed=0)
        clock = asyncio.get_running_loop().time
        ended: list[tuple[float, int]] = []

        async def request() -> None:
            output = await engine.generate(prompt(), LIMIT)
            ended.append((clock(), len(output.tokens)))

        running = [asyncio.create_task(request()) for _ in range(2)]
        await asyncio.sleep(3.5)
        during = engine.occupancy()
        await asyncio.wait(running)
        return ended, during, engine.occupancy()

    ended, during, after = virtual_time.run(main())

    # Of 16 + 64 tokens each, both hold 48 after two chunks of a second; the first to ask for 16 more is put back.
    assert ended == [(4.0, 64), (6.0, 64)]
    assert during == Occupancy(unfinished=2, finished=0, waiting=0, kv_use=0.8, preempted=1)
    assert after == Occupancy(unfinished=0, finished=2, waiting=0, kv_use=0.0, preempted=0)


def test_a_request_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="80 tokens never fits into 79"):
        generate_many(SimulatedEngine(replace(FIXED, kv_tokens=79), seed=0), 1)


def test_an_engine_that_dies_takes_its_requests_with_it_and_those_to_come() -> None:
    async def main() -> list[EngineOutput | BaseException]:
        engine = SimulatedEngine(replace(FIXED, death_probability=0.5), seed=0)
        first = await asyncio.gather(*(engine.generate(prompt(), LIMIT) for _ in range(8)), return_exceptions=True)
        later = await asyncio.gather(engine.generate(prompt(), LIMIT), return_exceptions=True)
        return [*first, *later]

    assert [type(result) for result in virtual_time.run(main())] == [EngineDied] * 9


def test_requests_fail_as_often_as_they_should() -> None:
    async def main() -> int:
        engine = SimulatedEngine(Simulation(failure_probability=0.25), seed=0)
        results = await asyncio.gather(*(engine.generate(prompt(), LIMIT) for _ in range(400)), return_exceptions=True)
        assert all(isinstance(result, EngineOutput | EngineError) for result in results)
        return sum(isinstance(result, EngineError) for result in results)

    assert virtual_time.run(main()) == pytest.approx(100, abs=30)


def test_a_closed_engine_fails_what_is_in_flight_and_what_comes_later() -> None:
    async def main() -> None:
        engine = SimulatedEngine(FIXED, seed=0)
        running = asyncio.create_task(engine.generate(prompt(), LIMIT))
        await asyncio.sleep(1.5)
        await engine.close()
        await engine.close()
        with pytest.raises(EngineError, match="closed after 16 tokens"):
            await running
        with pytest.raises(EngineError, match="closed after 0 tokens"):
            await engine.generate(prompt(), LIMIT)
        with pytest.raises(EngineError, match="closed before weight version 1"):
            await engine.update_weights(1, WEIGHTS)

    virtual_time.run(main())


def test_the_checksum_sees_names_shapes_types_and_values() -> None:
    same_in_another_order = {"b": WEIGHTS["b"], "a": WEIGHTS["a"]}
    different = [
        {"a": WEIGHTS["a"], "c": WEIGHTS["b"]},
        {"a": WEIGHTS["a"].reshape(3, 2), "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"], "b": WEIGHTS["b"].astype(np.int32)},
        {"a": WEIGHTS["a"] * 2, "b": WEIGHTS["b"]},
    ]

    assert checksum_of(same_in_another_order) == checksum_of(WEIGHTS)
    assert len({checksum_of(weights) for weights in [WEIGHTS, *different]}) == 5
