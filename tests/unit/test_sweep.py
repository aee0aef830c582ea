"""What `caliber tune` reads from its command line."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.sweep import Draw, Sweep, name_of, read_sweep


def test_every_combination_of_what_is_listed_is_a_trial() -> None:
    sweep = read_sweep(["rl.steps=50", "rewards.weights.calibration=0.5,1", "rl.max_policy_lag=0, 2"])

    assert sweep.fixed == ("rl.steps=50",)
    assert sweep.trials(None, 0) == [
        {"rewards.weights.calibration": calibration, "rl.max_policy_lag": lag}
        for calibration in ("0.5", "1")
        for lag in ("0", "2")
    ]


@pytest.mark.parametrize(
    "override",
    ["engine.cores=[0-15,16-31]", "learner.lora={rank: 4, targets: [q_proj]}", 'name="a,b"', "name='a,b'", "rl.steps"],
)
def test_commas_within_brackets_and_quotes_list_no_values(override: str) -> None:
    assert read_sweep([override]) == Sweep((override,), {}, {})


def test_values_with_commas_of_their_own_can_be_listed() -> None:
    sweep = read_sweep(["learner.lora={rank: 4, targets: [q_proj]},{rank: 8, targets: [q_proj, v_proj]}"])

    assert sweep.listed == {
        "learner.lora": ("{rank: 4, targets: [q_proj]}", "{rank: 8, targets: [q_proj, v_proj]}"),
    }


def test_a_drawn_value_is_within_its_bounds_and_has_three_digits() -> None:
    sweep = read_sweep(["rl.optimizer.learning_rate=loguniform(1e-5, 1e-4)", "rl.kl_weight=uniform(0,0.1)"])

    trials = sweep.trials(50, seed=1)

    rates = [float(trial["rl.optimizer.learning_rate"]) for trial in trials]
    assert len(set(rates)) > 40
    assert min(rates) >= 1e-5
    assert max(rates) <= 1e-4
    assert sum(rate < 10**-4.5 for rate in rates) == pytest.approx(25, abs=10)  # half of them below the middle's power
    assert all(float(f"{rate:.3g}") == rate for rate in rates)
    assert all(0 <= float(trial["rl.kl_weight"]) <= 0.1 for trial in trials)


def test_more_samples_add_trials_and_change_none() -> None:
    sweep = read_sweep(["rl.kl_weight=uniform(0,1)", "rl.max_policy_lag=0,1"])

    few, many = sweep.trials(2, seed=3), sweep.trials(5, seed=3)

    assert many[:4] == few
    assert len(many) == 10
    assert few != sweep.trials(2, seed=4)


@pytest.mark.parametrize(
    ("overrides", "samples", "complaint"),
    [
        (["rl.steps=50"], None, "nothing to try: give a setting several values"),
        (["rl.kl_weight=uniform(0,1)"], None, "rl.kl_weight is drawn: say how often, as in --samples 8"),
        (["rl.kl_weight=uniform(0,1)"], 0, "say how often"),
        (["rl.steps=1,2"], 3, "--samples is for values that are drawn"),
        (["rl.steps=1,2,1"], None, "rl.steps=1: given twice"),
    ],
)
def test_what_makes_no_trials_is_refused(overrides: list[str], samples: int | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_sweep(overrides).trials(samples, 0)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("engine.workers=1,2", "engine.workers=1,2: a trial is a stage 3.*settings of rl, rewards, learner, seed"),
        ("output=a,b", "A value with commas is put in quotes"),
        ("stage2.steps=uniform(1,9)", "a trial is a stage 3"),
        ("rl.steps=1,,2", "rl.steps=1,,2: a value between two commas is empty"),
        ("rl.steps=choice(1,2)", r"got choice; expected uniform\(LOW,HIGH\) or loguniform"),
        ("rl.kl_weight=uniform(1)", r"got \(1\); expected"),
        ("rl.kl_weight=uniform(a,b)", r"got \(a,b\); expected"),
        ("rl.kl_weight=uniform(1,0)", r"got \(1,0\); expected .* LOW below HIGH"),
        ("rl.kl_weight=uniform(0,nan)", "expected"),
        ("rl.kl_weight=loguniform(0,1)", "the logarithm of 0 is not defined; take a LOW above 0, or uniform"),
    ],
)
def test_an_override_that_cannot_be_meant_is_named_with_the_remedy(override: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_sweep([override])


def test_a_setting_is_tried_in_one_place() -> None:
    with pytest.raises(ValueError, match=r"rl.steps=3,4: rl.steps is tried already"):
        read_sweep(["rl.steps=1,2", "rl.steps=3,4"])


def test_a_name_has_the_settings_and_nothing_that_a_folder_may_not_have() -> None:
    trial = {"rewards.weights.calibration": "0.25", "learner.lora": "{rank: 4, targets: [../q]}", "seed": "1"}

    assert name_of(trial) == "calibration-0.25_lora-_rank_4_targets_.._q__seed-1"


def test_a_draw_on_the_line_is_even() -> None:
    values = [float(Draw(2, 4, logarithmic=False).value(np.random.default_rng(n))) for n in range(400)]

    assert np.mean(values) == pytest.approx(3, abs=0.1)
