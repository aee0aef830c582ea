from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.schema import Baseline, Credit, Rewards, RewardWeights
from learner.batching import TrainingSequence
from learner.sequences import rl_sequences
from learner.tree import ConfidenceTree, OffTree
from rollout.chat import Expanded
from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan

PROMPT = Expanded(np.array([1, 2, 3], np.int32), None, None)
WEIGHTS = RewardWeights(correctness=1.0, calibration=2.0, format=0.5)


def trajectory(correct: float, confidence: float, *, malformed: bool = False) -> Trajectory:
    sample = Sample(
        tokens=np.array([4, 5, 6, 7], np.int32),
        logprobs=np.full(4, -0.5, np.float32),
        version_spans=(VersionSpan(0, 0, 4),),
        finish_reason=FinishReason.STOP,
        text="",
        started=0.0,
        finished=1.0,
    )
    if malformed:
        worst = {"correctness": 0.0, "calibration": -1.0, "format": 0.0}
        return Trajectory(sample, Score(None, None, "missing_tag", None, None, worst, None, None, None))
    parts = {"correctness": correct, "calibration": -((confidence - correct) ** 2), "format": 1.0}
    return Trajectory(sample, Score("joy", confidence, None, correct, correct, parts, None, None, Span(1, 3)))


def group(*trajectories: Trajectory) -> Group:
    return Group(0, "p", (), PROMPT.token_ids, "joy", 0.0, "rollout-0", trajectories)


def test_confidence_tokens_get_the_calibration_and_all_others_the_correctness() -> None:
    made = rl_sequences(group(trajectory(1, 0.9), trajectory(0, 0.5)), PROMPT, WEIGHTS, Rewards())

    right, wrong = (sequence.advantages for sequence in made)

    # Half of 1; and twice half of what 0.9 scores less what 0.5 does, both if right and both if wrong.
    assert right == pytest.approx([0.5, 0.24, 0.24, 0.5])
    assert wrong == pytest.approx([-0.5, 0.56, 0.56, -0.5])
    assert made[0].confidence_mask is not None and made[0].confidence_mask.tolist() == [False, True, True, False]


def test_a_malformed_response_has_no_say_in_the_calibration_of_the_others() -> None:
    members = (trajectory(1, 0.9), trajectory(1, 0.9), trajectory(0, 0, malformed=True))

    made = rl_sequences(group(*members), PROMPT, WEIGHTS, Rewards())

    assert made[0].advantages is not None and made[2].advantages is not None
    assert made[0].advantages[1:3] == pytest.approx([0.0, 0.0])
    assert made[0].advantages[0] == pytest.approx(0.5)  # 1.5 less the mean of 1.5, 1.5 and 0
    assert made[2].advantages == pytest.approx([-1.0] * 4)


def test_joint_credit_gives_every_token_the_sum() -> None:
    rewards = Rewards(credit=Credit.JOINT, baseline=Baseline.LEAVE_ONE_OUT)

    made = rl_sequences(group(trajectory(1, 0.9), trajectory(0, 0.5)), PROMPT, WEIGHTS, rewards)

    assert made[0].advantages == pytest.approx([1.48] * 4)  # 1 + 2 x 0.24, against the only other member


def test_a_response_that_could_not_be_scored_is_never_trained_on_and_has_no_say() -> None:
    lost = replace(trajectory(0, 0), score=None, failure="the scorer hung")

    made = rl_sequences(group(trajectory(1, 0.9), lost, trajectory(0, 0.5)), PROMPT, WEIGHTS, Rewards())

    assert [float(sequence.weights.sum()) for sequence in made] == [4.0, 0.0, 4.0]
    assert made[0].advantages == pytest.approx([0.5, 0.24, 0.24, 0.5])
    assert made[2].advantages == pytest.approx([-0.5, 0.56, 0.56, -0.5])


def test_a_confidence_token_can_weigh_more() -> None:
    (made, _) = rl_sequences(
        group(trajectory(1, 0), trajectory(0, 0)), PROMPT, WEIGHTS, Rewards(confidence_token_weight=3)
    )

    assert made.weights.tolist() == [1, 3, 3, 1]


def test_each_token_knows_the_weight_version_it_was_sampled_under() -> None:
    first = trajectory(1, 0)
    mixed = replace(first, sample=replace(first.sample, version_spans=(VersionSpan(3, 0, 1), VersionSpan(5, 1, 4))))

    (made, _) = rl_sequences(group(mixed, trajectory(0, 0)), PROMPT, WEIGHTS, Rewards())

    assert made.versions is not None and made.versions.tolist() == [3, 5, 5, 5]


def test_prompt_ids_that_differ_from_the_engines_are_refused() -> None:
    other = Expanded(np.array([1, 2, 4], np.int32), None, None)

    with pytest.raises(ValueError, match="processor"):
        rl_sequences(group(trajectory(1, 0), trajectory(0, 0)), other, WEIGHTS, Rewards())


TREE = ConfidenceTree(
    confidences=np.array([0.0, 0.5, 1.0]),
    before=4,
    tokens=np.array([5]),
    depths=np.array([1]),
    visible=np.array([[True]]),
    edge_nodes=np.array([0, 0, 1, 1]),
    edge_tokens=np.array([5, 9, 6, 8]),
    paths=np.array([[0, 2], [0, 3], [1, 4]]),
)


def test_with_a_tree_the_branches_stand_for_the_sampled_confidence() -> None:
    rewards = Rewards(confidence_token_weight=3)

    right, wrong = rl_sequences(group(trajectory(1, 0.9), trajectory(0, 0.5)), PROMPT, WEIGHTS, rewards, TREE)

    assert right.advantages == pytest.approx([0.5, 0, 0, 0.5])
    assert right.weights.tolist() == [1, 3, 3, 1]
    assert right.branches is not None and wrong.branches is not None
    assert (right.branches.anchor, right.branches.weight) == (0, 3)
    assert right.branches.values == pytest.approx([0.5, 2.0, 2.5])  # 0.5 + 2 x (1 - (1 - c)^2)
    assert wrong.branches.values == pytest.approx([2.5, 2.0, 0.5])
    assert right.own_length == 4 + 1


def test_a_confidence_that_the_tree_spells_otherwise_is_trained_on_beside_the_branches() -> None:
    left_at_once = replace(TREE, edge_tokens=np.array([9, 6, 7, 8]))
    left_behind_it = replace(TREE, edge_tokens=np.array([5, 6, 9, 8]), paths=np.array([[0, 2], [1, 4]]))
    left_behind_it = replace(left_behind_it, confidences=np.array([0.0, 1.0]))
    left_in_the_tag = replace(TREE, edge_tokens=np.array([5, 6, 9, 6]), paths=np.array([[0, 3, 2]]))
    left_in_the_tag = replace(left_in_the_tag, confidences=np.array([0.5]))

    def made(tree: ConfidenceTree) -> TrainingSequence:
        right, _ = rl_sequences(group(trajectory(1, 0.9), trajectory(0, 0.5)), PROMPT, WEIGHTS, Rewards(), tree)
        assert right.branches is not None and right.branches.off_tree is not None
        return right

    earned = 0.5 + 2 * (1 - 0.1**2)  # the form, and the score's lead over that of a malformed response
    for tree, place, inside in ((left_at_once, 1, 2), (left_behind_it, 2, 2), (left_in_the_tag, 3, 3)):
        found = made(tree)
        assert found.branches is not None and found.branches.off_tree == OffTree(place, pytest.approx(earned))
        assert found.confidence_mask is not None
        assert found.confidence_mask.tolist() == [False, *[True] * inside, *[False] * (3 - inside)]
        assert found.advantages == pytest.approx([0.5, *[earned] * inside, *[0.5] * (3 - inside)])


def test_joint_credit_counts_the_answer_into_what_a_confidence_is_worth_over_a_malformed_response() -> None:
    members = group(trajectory(1, 0.9), trajectory(0, 0.5))

    right, wrong = rl_sequences(members, PROMPT, WEIGHTS, Rewards(credit=Credit.JOINT), TREE)

    assert right.branches is not None and right.branches.values == pytest.approx([1.5, 3.0, 3.5])
    assert wrong.branches is not None and wrong.branches.values == pytest.approx([2.5, 2.0, 0.5])


def test_a_confidence_behind_another_token_than_the_trees_keeps_the_sampled_gradient() -> None:
    members = group(trajectory(1, 0.9), trajectory(0, 0, malformed=True), trajectory(0, 0.5))

    made = rl_sequences(members, PROMPT, WEIGHTS, Rewards(), replace(TREE, before=9))

    assert [sequence.branches for sequence in made] == [None, None, None]
    assert made[0].advantages is not None and made[0].advantages[1] == pytest.approx(0.24)
