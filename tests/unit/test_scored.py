from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Response, Rewards, ScoringRule
from rewards.parse import Malformed, render
from rewards.parts import MatchError
from rollout.codec import decode_group, encode_group
from rollout.prompts import Message, Prompt
from rollout.scored import GroupScorer
from rollout.scorer_process import UnusableScorer
from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan
from tests.unit.byte_tokenizer import END, tokenizer
from tests.unit.groups import same

FORM = Response(reasoning_elements=("element",))
FREE = Response(reasoning_elements=())
CANDIDATES = ("negative", "neutral", "positive")
PROMPT = Prompt("p7", "emoji", (Message("user", "How?"),), candidates=CANDIDATES)
GOOD = render({"element": "a sun"}, "positive", "0.8")


def sample(text: str, reason: FinishReason = FinishReason.STOP) -> Sample:
    ids = tokenizer().encode(text).ids + [END] * (reason is FinishReason.STOP)
    tokens = np.array(ids, np.int32)
    logprobs = np.full(len(ids), -0.5, np.float32)
    return Sample(tokens, logprobs, (VersionSpan(0, 0, len(ids)),), reason, text, 0.0, 1.0)


def group(*samples: Sample, target: str | None = "positive") -> Group:
    return Group(
        group_id=3,
        prompt_id="p7",
        images=("/data/1.png",),
        prompt_tokens=np.array([5, 6], np.int32),
        target=target,
        admitted=12.5,
        worker="rollout-0",
        trajectories=tuple(map(Trajectory, samples)),
        meters={"sampling_seconds": 2.0},
    )


def scored(group: Group, form: Response = FORM, rewards: Rewards | None = None, prompt: Prompt = PROMPT) -> Group:
    return GroupScorer(tokenizer(), form, rewards or Rewards()).score(group, prompt)


def score(one: Sample, form: Response = FORM, rewards: Rewards | None = None, prompt: Prompt = PROMPT) -> Score:
    (trajectory,) = scored(group(one), form, rewards, prompt).trajectories
    assert trajectory.failure is None
    assert trajectory.score is not None
    return trajectory.score


def text_of(one: Sample, span: Span | None) -> str:
    assert span is not None
    return tokenizer().decode(one.tokens[span.start : span.end].tolist(), skip_special_tokens=False)


def test_a_right_answer_is_scored_with_its_confidence_and_raw_parts() -> None:
    found = score(sample(GOOD))

    assert (found.answer, found.confidence, found.malformed, found.correct) == ("positive", 0.8, None, 1.0)
    assert found.parts == pytest.approx({"correctness": 1.0, "calibration": -0.04, "format": 1.0})


def test_a_wrong_answer_is_well_formed_and_wrong() -> None:
    found = score(sample(render({"element": "a sun"}, "neutral", "0.8")))

    assert (found.answer, found.malformed, found.correct) == ("neutral", None, 0.0)
    assert found.parts == pytest.approx({"correctness": 0.0, "calibration": -0.64, "format": 1.0})


def test_an_answer_counts_in_the_candidates_spelling() -> None:
    found = score(sample(GOOD.replace("positive", " Positive\n")))

    assert (found.answer, found.correct) == ("positive", 1.0)


def test_answers_are_held_against_the_groups_target_not_the_prompts_label() -> None:
    (trajectory,) = scored(group(sample(GOOD), target="neutral"), prompt=replace(PROMPT, label="positive")).trajectories

    assert trajectory.score is not None
    assert trajectory.score.correct == 0.0


def test_spans_hold_the_tokens_of_the_contents_and_not_the_tags() -> None:
    one = sample(GOOD)

    found = score(one)

    assert text_of(one, found.reasoning_span) == "<element>a sun</element>"
    assert text_of(one, found.answer_span) == "positive"
    assert text_of(one, found.confidence_span) == "0.8"


@given(
    reasoning=st.text(max_size=12).filter(lambda text: "<" not in text),
    answer=st.text(st.characters(codec="utf-8", categories=["L", "S"], exclude_characters="<"), min_size=1, max_size=8),
    percent=st.integers(0, 100),
)
def test_spans_are_exact_whatever_the_characters(reasoning: str, answer: str, percent: int) -> None:
    confidence = f"{percent / 100:.2f}"
    one = sample(
        f"<think>{reasoning}</think> <answer>{answer}</answer>\n<confidence>{confidence}</confidence>",
    )

    found = score(one, FREE, prompt=replace(PROMPT, candidates=()))

    assert found.malformed is None
    assert text_of(one, found.reasoning_span or Span(0, 0)) == reasoning
    assert text_of(one, found.answer_span) == answer
    assert text_of(one, found.confidence_span) == confidence


def test_an_empty_reasoning_has_no_span() -> None:
    found = score(sample("<think></think><answer>positive</answer><confidence>0.8</confidence>"), FREE)

    assert (found.malformed, found.reasoning_span) == (None, None)
    assert found.answer_span is not None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", Malformed.MISSING_TAG),
        (GOOD.replace("<confidence>0.8</confidence>", ""), Malformed.MISSING_TAG),
        (GOOD.replace("element>", "human>"), Malformed.MISSING_ELEMENT),
        (GOOD.replace("positive", "joy"), Malformed.NOT_A_CANDIDATE),
        (GOOD.replace("0.8", "80%"), Malformed.BAD_CONFIDENCE),
    ],
)
def test_a_malformed_response_tells_its_cause_and_has_the_least_of_every_part(text: str, cause: Malformed) -> None:
    found = score(sample(text))

    assert found.malformed == cause.value
    assert type(found.malformed) is str
    assert found.parts == {"correctness": 0.0, "calibration": -1.0, "format": 0.0}
    assert (found.answer, found.confidence, found.correct) == (None, None, None)
    assert (found.reasoning_span, found.answer_span, found.confidence_span) == (None, None, None)


def test_a_response_that_the_limit_cut_is_truncated_though_it_reads_well() -> None:
    assert score(sample(GOOD, FinishReason.LENGTH)).malformed == "truncated"


def test_the_scoring_rule_is_the_recipes() -> None:
    rewards = Rewards(scoring_rule=ScoringRule.LOG)

    assert score(sample(GOOD), rewards=rewards).parts["calibration"] == pytest.approx(math.log(0.8))


def test_scoring_adds_scores_and_changes_nothing_else() -> None:
    before = group(sample(GOOD), sample("no tags"), sample(GOOD, FinishReason.LENGTH))

    after = scored(before)

    assert [t.score is not None for t in after.trajectories] == [True] * 3
    assert same(replace(after, trajectories=tuple(replace(t, score=None) for t in after.trajectories)), before)


def test_a_response_that_cannot_be_scored_says_why_and_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    torn = replace(sample(GOOD), tokens=sample(GOOD).tokens[:4])  # its text is not that of its tokens

    first, second, third = scored(group(sample(GOOD), torn, sample(GOOD))).trajectories

    assert second.score is None
    assert (second.failure or "").startswith("ValueError: got characters [7, ")
    assert [(t.failure, t.score is None) for t in (first, third)] == [(None, False)] * 2
    assert "group 3: a response could not be scored" in caplog.text
    assert "Traceback" in caplog.text


def test_a_group_without_a_target_names_the_prompt_that_has_no_reference() -> None:
    (trajectory,) = scored(group(sample(GOOD), target=None)).trajectories

    assert trajectory.score is None
    assert trajectory.failure == "ValueError: prompt p7 has no reference to hold answers against"


def test_a_target_that_no_answer_can_match_is_a_failure_and_not_a_wrong_answer() -> None:
    (trajectory,) = scored(group(sample(GOOD), target="joy")).trajectories

    assert trajectory.score is None
    assert "got the target 'joy', expected one of the candidates" in (trajectory.failure or "")


def saying(answer: str) -> Sample:
    return sample(render({"element": "a sun"}, answer, "0.8"))


def test_a_matcher_without_a_verdict_costs_one_response_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def matches(answer: str, reference: str, /) -> float:
        if answer == "positive":
            return 0.75
        raise MatchError(f"no verdict on {answer}")

    before = group(*map(saying, ("negative", "positive", "negative", "neutral")))
    after = GroupScorer(tokenizer(), FORM, Rewards(), matches).score(before, PROMPT)

    assert [t.score.correct if t.score else t.failure for t in after.trajectories] == [
        "MatchError: no verdict on negative",
        0.75,
        "MatchError: no verdict on negative",
        "MatchError: no verdict on neutral",
    ]
    (record,) = caplog.records
    assert record.getMessage() == (
        "group 3: 3 of 4 responses have no score: MatchError: no verdict on negative; MatchError: no verdict on neutral"
    )


def test_a_scorer_that_is_unusable_costs_no_response_but_ends_the_work() -> None:
    def matches(answer: str, reference: str, /) -> float:
        raise UnusableScorer("rewards.correctness: gone")

    with pytest.raises(UnusableScorer, match="gone"):
        GroupScorer(tokenizer(), FORM, Rewards(), matches).score(group(sample(GOOD)), PROMPT)


@pytest.mark.parametrize("text", ["x" * 100_000, "half a pair \ud800"])
def test_whatever_a_scorer_says_of_its_failure_the_group_can_be_written(text: str) -> None:
    def matches(answer: str, reference: str, /) -> float:
        raise MatchError(text)

    after = GroupScorer(tokenizer(), FORM, Rewards(), matches).score(group(sample(GOOD)), PROMPT)

    (trajectory,) = decode_group(encode_group(after)).trajectories
    assert (trajectory.failure or "").startswith(f"MatchError: {text[:10]}")


def test_a_groups_responses_are_judged_at_once_where_a_judge_is_waited_for() -> None:
    everyone = threading.Barrier(3)

    def matches(answer: str, reference: str, /) -> float:
        everyone.wait(60)
        return float(answer == "positive")

    rewards = Rewards.model_validate({"correctness": "judge", "judge": {"url": "https://judge"}})
    before = group(*map(saying, ("negative", "positive", "neutral")))
    after = GroupScorer(tokenizer(), FORM, rewards, matches).score(before, PROMPT)

    assert [t.score.correct for t in after.trajectories if t.score] == [0.0, 1.0, 0.0]
