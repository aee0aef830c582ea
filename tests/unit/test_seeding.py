from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.seeding import SeededRows, read_seeds, seed_by_annotators, seed_by_samples, write_seeds
from configs.schema import Response, Seeding, SeedSource
from rollout.prompts import Message, Prompt
from rollout.trajectory import FinishReason, Group, Sample, Trajectory, VersionSpan
from tests.unit.byte_tokenizer import END, tokenizer

FORM = Response(reasoning_elements=(), confidence_step=0.05)
CANDIDATES = ("negative", "positive")


def prompt(number: int, counts: dict[str, int] | None = None) -> Prompt:
    return Prompt(
        f"p{number}",
        "emoji",
        (Message("user", "?"),),
        candidates=CANDIDATES,
        counts=counts or {},
        response="<think>it smiles</think><answer>positive</answer>",
    )


def sample(answer: str, reason: FinishReason = FinishReason.STOP, probability: float = 1.0) -> Sample:
    """Whose answer's first token was sampled with a probability, and every token before it with one of 0.5."""
    before, after = f"<think>it looks {answer}</think><answer>", f"{answer}</answer>"
    own = len(tokenizer().encode(after).ids) + (reason is FinishReason.STOP)
    ids = tokenizer().encode(before + after).ids + [END] * (reason is FinishReason.STOP)
    probabilities = np.array([0.5] * (len(ids) - own) + [probability] + [1.0] * (own - 1))
    spans = (VersionSpan(0, 0, len(ids)),)
    logprobs = np.log(probabilities).astype(np.float32)
    return Sample(np.array(ids, np.int32), logprobs, spans, reason, before + after, 0.0, 1.0)


def group(number: int, positive: int, negative: int, extra: tuple[Sample, ...] = ()) -> Group:
    samples = (*[sample("positive")] * positive, *[sample("negative")] * negative, *extra)
    return Group(
        number, f"p{number}", (), np.array([1], np.int32), None, 0.0, "rollout-0", tuple(map(Trajectory, samples))
    )


def seeded_by_samples(
    prompts: Sequence[Prompt], groups: Sequence[Group], seeding: Seeding, seed: int = 0
) -> SeededRows:
    return seed_by_samples(prompts, groups, seeding, FORM, seed, tokenizer())


def stated(row: Prompt) -> tuple[str, float]:
    found = re.fullmatch(r".*<answer>(.*)</answer><confidence>(.*)</confidence>", row.response or "")
    assert found is not None
    return found[1], float(found[2])


def test_each_response_states_the_share_of_samples_that_gave_its_answer() -> None:
    seeding = Seeding(rows_per_prompt=32, uniform_share=0.0, prior=0.5)

    seeded = seeded_by_samples([prompt(0)], [group(0, 26, 6)], seeding)

    rows = Counter(map(stated, seeded.prompts))
    assert rows == {("positive", 0.80): 26, ("negative", 0.20): 6}  # 26.5 / 33 and 6.5 / 33 on a grid of 0.05
    assert len({row.prompt_id for row in seeded.prompts}) == 32


def test_answers_are_as_frequent_in_the_rows_as_in_the_samples() -> None:
    prompts, groups = [prompt(n) for n in range(500)], [group(n, 6, 2) for n in range(500)]

    seeded = seeded_by_samples(prompts, groups, Seeding(rows_per_prompt=2))

    assert len(seeded.prompts) == 1000
    assert np.mean([stated(row)[0] == "positive" for row in seeded.prompts]) == pytest.approx(0.75, abs=0.04)


def test_the_reasoning_is_that_of_a_sample_with_the_same_answer() -> None:
    seeded = seeded_by_samples([prompt(0)], [group(0, 4, 4)], Seeding(rows_per_prompt=8))

    for row in seeded.prompts:
        answer, _ = stated(row)
        assert f"it looks {answer}" in (row.response or "")


def test_malformed_and_truncated_samples_have_no_vote() -> None:
    cut = sample("negative", FinishReason.LENGTH)
    noise = replace(sample("negative"), text="no tags")
    seeding = Seeding(rows_per_prompt=1, uniform_share=0.0)

    seeded = seeded_by_samples([prompt(0)], [group(0, 8, 0, (cut, noise))], seeding)

    assert stated(seeded.prompts[0]) == ("positive", 0.95)  # 8.5 / 9


def test_a_prompt_without_a_well_formed_sample_is_skipped_and_counted() -> None:
    empty = group(1, 0, 0, (replace(sample("positive"), text=""),))

    seeded = seeded_by_samples([prompt(0), prompt(1)], [group(0, 3, 1), empty], Seeding())

    assert seeded.skipped == 1
    assert {row.prompt_id.split("#")[0] for row in seeded.prompts} == {"p0"}


def test_a_model_that_gives_no_well_formed_response_at_all_is_refused() -> None:
    empty = group(0, 0, 0, (replace(sample("positive"), text=""),))

    with pytest.raises(ValueError, match="train it longer"):
        seeded_by_samples([prompt(0)], [empty], Seeding())


def test_every_tenth_of_the_range_has_support_even_where_the_model_always_agrees() -> None:
    prompts = [prompt(number) for number in range(1000)]
    groups = [group(number, 8, 0) for number in range(1000)]

    seeded = seeded_by_samples(prompts, groups, Seeding(rows_per_prompt=1, uniform_share=0.1))

    counts, _ = np.histogram(seeded.confidences, bins=10, range=(0, 1))
    assert counts.min() >= 1
    assert counts[-1] > 850


def test_a_summary_counts_each_stated_tenth_in_its_own_bin() -> None:
    stated = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

    summary = SeededRows([], stated, skipped=0).summary()

    assert "by tenths [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]" in summary


def test_each_response_states_the_probability_its_own_answer_was_sampled_with() -> None:
    samples = (
        sample("positive", probability=0.71),
        sample("positive", probability=0.34),
        sample("negative", probability=0.05),
    )
    seeding = Seeding(source=SeedSource.ANSWER_PROBABILITY, rows_per_prompt=3, uniform_share=0.0)

    seeded = seeded_by_samples([prompt(0)], [group(0, 0, 0, samples)], seeding)

    rows = sorted(map(stated, seeded.prompts))
    assert rows == [("negative", 0.05), ("positive", 0.35), ("positive", 0.70)]  # on a grid of 0.05


def test_annotators_are_not_asked_under_agreement_and_are_under_annotators() -> None:
    counts = {"negative": 9, "positive": 1}
    seeding = Seeding(rows_per_prompt=1, uniform_share=0.0)

    blind = seeded_by_samples([prompt(0, counts)], [group(0, 8, 0)], seeding)
    told = seed_by_annotators(
        [prompt(0, counts)], seeding.model_copy(update={"source": SeedSource.ANNOTATORS}), FORM, seed=0
    )

    assert stated(blind.prompts[0]) == ("positive", 0.95)
    assert stated(told.prompts[0]) == ("positive", 0.15)  # 1.5 / 11


def test_the_same_seed_gives_the_same_rows() -> None:
    prompts, groups = [prompt(n) for n in range(20)], [group(n, 5, 3) for n in range(20)]

    first, second, other = (seeded_by_samples(prompts, groups, Seeding(), seed).prompts for seed in (1, 1, 2))

    assert first == second != other


def test_kept_rows_come_back_as_they_were(tmp_path: Path) -> None:
    prompts = [prompt(0), prompt(1)]
    rows = seeded_by_samples(prompts, [group(0, 26, 6), group(1, 3, 9)], Seeding()).prompts

    write_seeds(tmp_path / "seeded.jsonl", rows)

    assert read_seeds(tmp_path / "seeded.jsonl", prompts) == rows
