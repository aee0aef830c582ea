from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.ledger import Drop, DropReason, Ledger, LedgerState


def ledger_of(groups: int) -> Ledger:
    ledger = Ledger()
    for group_id in range(groups):
        ledger.admit(group_id, f"prompt-{group_id}")
    return ledger


def test_a_group_is_outstanding_until_it_is_trained_or_dropped() -> None:
    ledger = ledger_of(3)

    ledger.trained(1, step=0)
    ledger.dropped(0, DropReason.SCORING_FAILED)

    assert ledger.outstanding() == {2: "prompt-2"}
    assert ledger.trained_count == 1
    assert ledger.drops() == {0: Drop("prompt-0", DropReason.SCORING_FAILED)}
    assert ledger.drop_counts() == {DropReason.SCORING_FAILED: 1}
    assert ledger.next_id == 3


def test_a_group_cannot_be_accounted_for_twice() -> None:
    ledger = ledger_of(2)
    ledger.trained(0, step=0)
    ledger.dropped(1, DropReason.STALE)

    with pytest.raises(ValueError, match="group 0 cannot be trained in step 1: it was trained on before"):
        ledger.trained(0, step=1)
    with pytest.raises(ValueError, match=r"group 0 cannot be dropped \(stale\): it was trained on before"):
        ledger.dropped(0, DropReason.STALE)
    with pytest.raises(ValueError, match=r"group 1 cannot be trained in step 1: it was dropped before \(stale\)"):
        ledger.trained(1, step=1)
    with pytest.raises(ValueError, match="it was dropped before"):
        ledger.dropped(1, DropReason.STALE)


@pytest.mark.parametrize("group_id", [-1, 2, 99])
def test_a_group_that_was_never_admitted_has_no_account(group_id: int) -> None:
    ledger = ledger_of(2)

    with pytest.raises(ValueError, match=r"never admitted \(2 groups were\)"):
        ledger.trained(group_id, step=0)
    with pytest.raises(ValueError, match="never admitted"):
        ledger.dropped(group_id, DropReason.STALE)


@pytest.mark.parametrize("group_id", [0, 1, 3])
def test_ids_are_consecutive(group_id: int) -> None:
    with pytest.raises(ValueError, match="expected 2: ids are consecutive"):
        ledger_of(2).admit(group_id, "prompt")


def test_steps_do_not_go_back() -> None:
    ledger = ledger_of(3)
    ledger.trained(0, step=4)
    ledger.trained(1, step=4)

    with pytest.raises(ValueError, match="got step 3 for group 2, expected 4 or later"):
        ledger.trained(2, step=3)
    with pytest.raises(ValueError, match="got step -1"):
        ledger_of(1).trained(0, step=-1)
    assert ledger.outstanding() == {2: "prompt-2"}


def test_a_refused_training_leaves_the_step_as_it_was() -> None:
    ledger = ledger_of(1)
    with pytest.raises(ValueError, match="never admitted"):
        ledger.trained(7, step=9)

    ledger.trained(0, step=0)

    assert ledger.trained_count == 1


@given(st.lists(st.sampled_from(["admit", "train", "drop"]), max_size=40), st.randoms())
def test_every_group_is_counted_once_and_the_state_survives_json(moves: list[str], chance: st.randoms) -> None:  # type: ignore[valid-type]
    ledger, step = Ledger(), 0
    for move in moves:
        open_ids = list(ledger.outstanding())
        if move == "admit" or not open_ids:
            ledger.admit(ledger.next_id, f"prompt-{ledger.next_id}")
        elif move == "train":
            ledger.trained(chance.choice(open_ids), step)
            step += 1
        else:
            ledger.dropped(chance.choice(open_ids), chance.choice(list(DropReason)))

    again = Ledger()
    again.load_state_dict(json.loads(json.dumps(ledger.state_dict())))

    assert again.state_dict() == ledger.state_dict()
    for one in (ledger, again):
        assert one.trained_count == step
        assert one.trained_count + len(one.outstanding()) + len(one.drops()) == one.next_id
        assert one.drop_counts() == Counter(drop.reason for drop in one.drops().values())


@pytest.mark.parametrize("reason", ["stale", "too_slow", "generation_failed", "scoring_failed"])
def test_a_checkpoint_from_before_other_reasons_were_told_apart_is_read(reason: str) -> None:
    ledger = Ledger()

    ledger.load_state_dict({"admitted": 1, "last_step": -1, "outstanding": [], "dropped": [[0, "prompt-0", reason]]})

    assert ledger.drop_counts() == {DropReason(reason): 1}


def valid_state() -> LedgerState:
    ledger = ledger_of(4)
    ledger.trained(0, step=2)
    ledger.dropped(1, DropReason.STALE)
    return ledger.state_dict()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": 1}, "keys"),
        ({"admitted": "4"}, "admitted"),
        ({"admitted": 3}, r"\[3\] were never admitted"),
        ({"last_step": -1}, "last step"),
        ({"last_step": -2}, "last_step"),
        ({"last_step": None}, "last_step"),
        ({"outstanding": {}}, "outstanding: got dict"),
        ({"outstanding": [[2]]}, "outstanding"),
        ({"outstanding": [[2, 3]]}, "outstanding"),
        ({"outstanding": [[2, "a"], [2, "b"]]}, "twice"),
        ({"outstanding": [[1, "a"]]}, r"\[1\] are both"),
        ({"outstanding": [["2", "a"]]}, "group id"),
        ({"dropped": [[1, "a", "bored"]]}, "bored"),
        ({"dropped": [[1, "stale"]]}, "dropped"),
    ],
)
def test_a_state_that_does_not_add_up_is_refused_and_changes_nothing(change: dict[str, object], complaint: str) -> None:
    ledger = ledger_of(1)
    before = ledger.state_dict()

    with pytest.raises(ValueError, match=complaint):
        ledger.load_state_dict({**valid_state(), **change})  # type: ignore[typeddict-item]

    assert ledger.state_dict() == before


def test_a_state_without_one_of_its_keys_is_refused() -> None:
    state = dict(valid_state())
    del state["dropped"]

    with pytest.raises(ValueError, match="resume with the release that wrote"):
        Ledger().load_state_dict(state)  # type: ignore[arg-type]
