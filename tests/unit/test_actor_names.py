from __future__ import annotations

import ray

from cluster.actor_names import NamedActor, namespace_of, next_name


def test_no_actor_of_a_job_is_called_what_an_earlier_one_was() -> None:
    names = [next_name("place-of-this-test-0") for _ in range(3)]

    assert names == ["place-of-this-test-0", "place-of-this-test-0.1", "place-of-this-test-0.2"]
    assert next_name("place-of-this-test-1") == "place-of-this-test-1"


def test_two_jobs_of_a_run_have_names_of_their_own() -> None:
    assert namespace_of("emoji").startswith("emoji-")
    assert namespace_of("emoji") != namespace_of("emoji")


def test_to_print_an_actors_object_outside_of_ray_starts_no_cluster() -> None:
    assert "NamedActor object at" in repr(NamedActor())
    assert not ray.is_initialized()
