"""Whether nodes have room for actors, by numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.fit import fit, in_words
from configs.bundles import Asked, Bundle

GPUS_8 = Bundle(64.0, 8.0)


def asked(who: str, count: int, cpus: float, gpus: float) -> Asked:
    return Asked(who, count, Bundle(cpus, gpus), "engine.workers")


def test_eight_gpus_on_two_nodes_are_no_room_for_an_engine_of_eight() -> None:
    engine = asked("rollout workers", 1, 1, 8)

    assert fit([engine], [Bundle(16, 4), Bundle(16, 4)]).missing == [(engine, 1)]
    assert fit([engine], [Bundle(16, 4), Bundle(16, 8)]).missing == []


def test_who_needs_most_gpus_is_placed_first_whatever_the_order() -> None:
    learner, engines = asked("learner ranks", 1, 1, 1), asked("rollout workers", 2, 1, 4)

    found = fit([learner, engines], [Bundle(16, 4), Bundle(16, 5)])

    assert found.missing == []
    assert found.placed == ((learner, {1: 1}), (engines, {0: 1, 1: 1}))


def test_ranks_share_a_node_where_one_has_room() -> None:
    ((_, on),) = fit([asked("learner ranks", 4, 1, 1)], [GPUS_8, Bundle(16, 4), GPUS_8]).placed

    assert on == {1: 4}


def test_cpus_are_found_beside_no_gpus_where_there_are_such() -> None:
    scorers = asked("reward workers", 2, 1, 0)

    ((_, on),) = fit([scorers], [GPUS_8, Bundle(4, 0)]).placed

    assert on == {1: 2}


def test_who_finds_none_is_told_with_their_number_and_what_is_left_is_known() -> None:
    workers, scorers = asked("rollout workers", 3, 2, 0), asked("reward workers", 1, 0.25, 0)

    found = fit([workers, scorers], [Bundle(4.25, 0)])

    assert found.missing == [(workers, 1)]
    assert found.left == (Bundle(0.0, 0.0),)


def test_parts_of_a_cpu_add_up_to_it() -> None:
    assert fit([asked("w", 3, 0.2, 0)], [Bundle(0.6, 0)]).missing == []  # 0.6 - 0.2 - 0.2 < 0.2


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 4)), max_size=4),
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 8)), max_size=5),
)
def test_nobody_is_given_what_a_node_does_not_have(
    kinds: list[tuple[int, int, int]], having: list[tuple[int, int]]
) -> None:
    nodes = [Bundle(*each) for each in having]

    found = fit([asked(f"kind {n}", *kind) for n, kind in enumerate(kinds)], nodes)

    for number, node in enumerate(nodes):
        used = [(each.bundle, on.get(number, 0)) for each, on in found.placed]
        assert sum(bundle.cpus * times for bundle, times in used) == node.cpus - found.left[number].cpus <= node.cpus
        assert sum(bundle.gpus * times for bundle, times in used) == node.gpus - found.left[number].gpus <= node.gpus
    for each, short in found.missing:
        assert 0 < short <= each.count


def test_nodes_that_are_alike_are_told_together() -> None:
    told = in_words([Bundle(4, 0), GPUS_8, GPUS_8])

    assert told == "3 nodes: 2 of 64 CPUs and 8 GPUs, 1 of 4 CPUs"
    assert in_words([Bundle(1, 1)]) == "1 node: 1 of 1 CPU and 1 GPU"
