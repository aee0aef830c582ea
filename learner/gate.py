"""How many prompt groups may be in the system: the bound on staleness, kept at admission."""

from __future__ import annotations

from typing import TypedDict, cast

from learner.state import count, require_keys


class GateState(TypedDict):
    """Groups admitted and not dropped since the run began."""

    admitted: int


class AdmissionGate:
    """Admits at most (max_policy_lag + version + 1) · groups_per_step groups, dropped ones not counted.

    `version` is the newest weight version that *every live worker has confirmed*, so that the bound
    holds however long a broadcast takes: whatever starts now has no token older than `version`.
    Write G for groups_per_step, L for max_policy_lag. A group whose oldest token has version s may be
    trained at learner version s + L at the latest: that is its deadline. With `Buffer.take` under `wait`
    no deadline is missed:

        Claim. When the learner is at v, at most (k - v + 1)·G untrained groups have a deadline
        of k or earlier, for every k >= v. (So at most G are due at v, and one batch takes them all.)

        Admission keeps it. v·G groups are trained, so after an admission at the confirmed version
        s <= v at most (L + s + 1 - v)·G are untrained. The new group's deadline is s + L or later:
        it counts for k >= s + L only, and there (L + s + 1 - v)·G <= (k - v + 1)·G.

        Training keeps it. Of the n groups with a deadline of k or earlier, `Buffer.take` leaves at
        most (k - v)·G behind, and that is (k - (v + 1) + 1)·G.

    To take the groups that are due and then whatever is complete would not do: with G = 1 and L = 2,
    groups a, b, c begin at version 0. If v = 0 trains a and v = 1 trains a younger d that was quicker,
    then b and c are both due at v = 2.

    A dropped group frees its place, else the learner would wait for a batch that can never fill.
    The claim holds: v·G trained and at most (L + s + 1)·G admitted, dropped ones left out, are all it uses.
    A group that begins some time after its admission, at a newer s, keeps it too: its deadline is later.

    No deadlock: once all workers confirmed v there is room for (L + 1)·G untrained groups that may all be
    trained at v, since what is overdue was swept out or given up. While the learner stands at v each of
    them is completed, or dropped for another; and where G are complete and none runs, `Buffer.take` is
    ready under either policy.
    """

    def __init__(self, groups_per_step: int, max_policy_lag: int, steps: int | None = None) -> None:
        """With `steps`, the steps of the run, no group is admitted that no step will train."""
        if groups_per_step < 1 or max_policy_lag < 0:
            raise ValueError(
                f"got groups_per_step={groups_per_step} and max_policy_lag={max_policy_lag},"
                " expected at least 1 and at least 0"
            )
        self._groups_per_step = groups_per_step
        self._max_policy_lag = max_policy_lag
        self._steps = steps
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Groups admitted and not dropped since the run began."""
        return self._admitted

    def room(self, version: int) -> int:
        """Groups that may be admitted now; `version` is confirmed by every live worker."""
        steps = self._max_policy_lag + version + 1
        if self._steps is not None:
            steps = min(steps, self._steps)
        return max(0, steps * self._groups_per_step - self._admitted)

    def admit(self, groups: int = 1) -> None:
        """Count groups in. Ask `room` first: the caller knows the version, the gate does not."""
        if groups < 1:
            raise ValueError(f"got {groups} groups to admit, expected at least 1")
        self._admitted += groups

    def drop(self, groups: int = 1) -> None:
        """Give back the places of groups that will not be trained."""
        if not 1 <= groups <= self._admitted:
            raise ValueError(f"got {groups} groups to drop, expected 1 to {self._admitted}, the admitted ones")
        self._admitted -= groups

    def state_dict(self) -> GateState:
        """What `load_state_dict` reads."""
        return GateState(admitted=self._admitted)

    def load_state_dict(self, state: GateState) -> None:
        """Go on where the state was taken. Raises ValueError for a state that is not a gate's."""
        require_keys(cast("dict[str, object]", state), GateState.__required_keys__, "admission gate")
        self._admitted = count(state["admitted"], "admission gate: admitted")
