"""That benchmarks print tables and write JSON, with machine, versions and repeats: those that take seconds are run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    agreement_probe,
    attention,
    confidence_gradient,
    reward_service,
    shared_prompts,
    steps_to_excess,
    weight_deltas,
    what_confidence_buys,
    what_mixes_teach,
)
from benchmarks.agreement_probe import Read, told
from benchmarks.confidence_gradient import Spread
from benchmarks.report import figure, show
from configs.load import load_recipe, write_resolved
from rollout.words import Word
from tests.unit.finished_run import DEMO, finished_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS = DEMO.parents[1] / "words" / "words.yaml"
NO_REPORT = {"trl_side.py"}  # a side of benchmarks.against_trl, in an environment without Caliber


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs a benchmark with `--json`; gives the figures that it wrote."""

    def run(main: Callable[[], None], *words: object) -> dict[str, Any]:
        file = tmp_path / "written.json"
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words), "--json", str(file)])
        main()
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["machine"]["cores"] > 0
        assert {"python", "torch", "numpy"} <= found["versions"].keys()
        figures: dict[str, Any] = found["figures"]
        return figures

    return run


def medians(figures: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {one["of"].strip(): one["median"] for one in figures}


def test_every_benchmark_that_is_a_command_ends_with_its_report() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("*.py")}

    commands = {name: text for name, text in sources.items() if "\n    main()\n" in text and name not in NO_REPORT}

    assert len(commands) > 10
    for name, text in commands.items():
        assert '"--json"' in text and "    report.finish()\n" in text, name


def test_a_range_is_shown_of_repeats_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show("speeds", [figure("many", "s", [3.0, 1.0, 2.0], 1), figure("one", "tokens", [7])])

    many, one = capsys.readouterr().out.splitlines()[2:]
    assert many.split() == ["many", "2.0", "s", "(1.0", "to", "3.0)"]
    assert one.split() == ["one", "7", "tokens"]


def test_steps_to_an_excess(written: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    found = written(steps_to_excess.main, "--seeds", 2)

    assert list(found) == ["excess under 0.02", "excess under 0.01", "excess under 0.005"]
    for one in found.values():
        assert [figure["repeats"] for figure in one] == [2, 2, 2]
        assert medians(one)["exact"] < medians(one)["sampled"] and medians(one)["sampled / exact"] > 1
    assert "excess under 0.005\n  sampled" in capsys.readouterr().out


def test_what_a_mix_teaches(written: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    mix = "jointly, log, a = 1, b = 2"
    monkeypatch.setattr(what_mixes_teach, "MIXES", {mix: what_mixes_teach.MIXES[mix]})

    found = written(what_mixes_teach.main, "--seeds", 1)

    assert medians(found[mix])["accuracy"] < 0.3
    assert medians(found[mix])["excess Brier"] < 0
    assert medians(found[mix])["sabotage up to p"] > 0.5


def test_the_noise_of_the_confidence_gradient(
    written: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Comparison:
        def __init__(self, *_: object) -> None: ...

        def spread(self, groups: Sequence[SimpleNamespace], *, exact: bool) -> Spread:
            return Spread(torch.tensor([1.0, 0.0 if exact else 1.0]), 1.0 if exact else 2.0 + groups[0].number)

    def groups(_: Path) -> Iterator[SimpleNamespace]:
        return (SimpleNamespace(number=number, trajectories=range(8)) for number in range(13))

    write_resolved(load_recipe(DEMO), tmp_path / "recipe.yaml")
    monkeypatch.setattr(confidence_gradient, "Comparison", Comparison)
    monkeypatch.setattr(confidence_gradient, "first_groups", groups)

    found = written(confidence_gradient.main, tmp_path, "--sets", 3)

    noise, agreement = found["3 sets of 4 groups of 8 responses"]
    assert (noise["median"], noise["lowest"], noise["highest"], noise["repeats"]) == (6.0, 2.0, 10.0, 3)
    assert agreement["median"] == pytest.approx(2**-0.5)


def test_what_a_probe_tells_of_raters_agreement(
    written: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader:
        """Its states are the raters' shares, and noise; each fifth answer is the next one to the likeliest."""

        def __init__(self, *_: object) -> None:
            self._rng = np.random.default_rng(0)

        def read(self, words: Sequence[Word]) -> Read:
            shares, number = np.array([word.counts for word in words]) / 10, np.arange(len(words))
            answers = (shares.argmax(1) + (number % 5 == 0)) % 3
            states = np.stack([shares[number, answers], self._rng.normal(size=len(words))], 1).astype(np.float32)
            return Read(states, answers, np.full(len(words), 0.9, np.float32))

    monkeypatch.setattr(agreement_probe, "Reader", Reader)
    monkeypatch.setattr(agreement_probe, "_SIZES", (300,))

    found = written(agreement_probe.main, "model", WORDS)

    (figures,) = found.values()
    assert 0.75 < medians(figures)["answers that are the majority's"] < 0.9
    excess = {name: value for name, value in medians(figures).items() if name.endswith("excess")}
    assert excess["probe, 300 words, ten raters each: excess"] < 0.001
    assert excess["probe, 300 words, ten raters each: excess"] < excess["constant: excess"]


def test_a_confidence_s_excess_and_whether_it_ranks() -> None:
    share, agrees = np.array([1.0, 0.6, 0.2]), np.array([True, True, False])

    constant = told("constant", np.full(3, 0.6), share, agrees)
    ranked = told("probe", np.array([0.8, 0.6, 0.4]), share, agrees)

    assert [(one.of, one.median) for one in constant] == [("constant: excess", pytest.approx(0.32 / 3))]
    assert [(one.of, one.median) for one in ranked] == [("probe: excess", pytest.approx(0.08 / 3)), ("  AUROC", 1.0)]


def test_what_confidence_buys(
    written: Callable[..., dict[str, Any]], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path, tiny_model)

    found = written(what_confidence_buys.main, tmp_path / "run")

    assert found["seen"]["one response"]["accuracy"]["value"] == 3 / 12
    assert [one["risk"] for one in found["seen"]["thresholds"]["one response"]] == [*what_confidence_buys.RISKS]
    assert "12 prompts of seen, 12 responses, held against the annotators" in capsys.readouterr().out


def test_what_shared_prompts_save(written: Callable[..., dict[str, Any]], tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, "data.stage3=seen.jsonl", stages=0)
    size = ["--groups", 2, "--samples", 3, "--tokens", 8, "--repeats", 2]

    found = written(shared_prompts.main, tiny_model, f"{recipe.output}/recipe.yaml", *size)

    ((name, figures),) = found.items()
    assert name.startswith("2 groups of 3 responses of up to 8 tokens")
    once, each = (one["median"] for one in figures if one["unit"] == "tokens")
    assert once < each
    assert [one["repeats"] for one in figures if one["unit"] == "s"] == [2, 2]
    assert figures[-1]["median"] < 100


def test_which_attention_is_faster(written: Callable[..., dict[str, Any]], tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, "data.stage3=seen.jsonl", "learner.precision=fp32", stages=0)

    found = written(attention.main, tiny_model, f"{recipe.output}/recipe.yaml", "--groups", 2, "--repeats", 2)

    (figures,) = found.values()
    told = medians(figures)
    assert [one["repeats"] for one in figures if one["unit"] == "s"] == [2, 2]
    assert 0 < told["log-probabilities differ by at most"] < 100  # two implementations, one model
    assert told["eager faster by"] > 0


def test_how_small_deltas_are(written: Callable[..., dict[str, Any]], tiny_model: Path) -> None:
    found = written(weight_deltas.main, tiny_model, "--warm-up", 0, "--repeats", 2)

    assert len(found) == len(weight_deltas.LEARNING_RATES)
    for figures in found.values():
        assert 0 < medians(figures)["at least, by their entropy"] <= medians(figures)["bytes sent"]
        assert {one["repeats"] for one in figures} == {2}


def test_how_fast_rewards_are(written: Callable[..., dict[str, Any]]) -> None:
    found = written(reward_service.main, "--groups", 2, "--repeats", 3)

    assert list(found) == [case.correctness for case in reward_service.CASES]
    for tokens, alone, whole in found.values():
        assert tokens["median"] > 100 and alone["repeats"] == whole["repeats"] == 3
