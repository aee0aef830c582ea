"""A whole step of stage 3 on one rank, from encoded groups to moved weights, against loops over single responses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import ConfidenceGradient, Learner, LossMean, Recipe, RewardWeights
from learner.batching import TrainingSequence, collate
from learner.meters import TokenMeters
from learner.policy import Rank, ResponseLogprobs, load_model
from learner.rl import RlRank, RlReport
from learner.sequences import rl_sequences
from learner.tree import ConfidenceTree, confidence_tree
from rollout.chat import ChatFormat, ImageLimits
from rollout.codec import encode_group
from rollout.probe import PROBE_TOKENS, Probe
from rollout.prompts import Message, Prompt
from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan
from tests.unit.plain_policy import LEARNING_RATE, PlainPolicy, alone
from tests.unit.policy_losses import kl_pulls, losses_of

VERSION = 3
WEIGHTS = RewardWeights()
PROMPTS = {f"p{n}": Prompt(f"p{n}", "t", (Message("user", f"What is {n}?"),)) for n in range(4)}
RATIOS: dict[str, object] = {"ratio_low": 0.8, "ratio_high": 1.3}
# A token each: the model, hardly trained, gives longer ones no probability. Their weight makes up for what these have.
GRID = {"0": 0.0, "1": 1.0}
EXACT: dict[str, object] = {"confidence_gradient": "exact", "confidence_token_weight": 300}
STEPS: dict[str, dict[str, object]] = {
    "recomputed": {
        "correction": "decoupled_ppo",
        "minibatches": 2,
        "importance_cap": 1.2,
        "ratio_low": 0.98,
        "ratio_high": 1.02,
    },
    "interpolated": {"correction": "decoupled_ppo", "proximal": "interpolated", "importance_cap": 1.2, **RATIOS},
    "gspo": {
        "correction": "gspo",
        "loss_mean": "sequence",
        "minibatches": 2,
        "ratio_low": 0.95,
        "ratio_high": 1.05,
    },
    "icepop": {"correction": "icepop", "loss_mean": "fixed_length", **RATIOS},
    "held by k2": {"importance_cap": 1.2, "kl_weight": 0.5, "kl_estimator": "k2"},
    "held by k3": {"importance_cap": 1.2, "kl_weight": 0.5, "kl_estimator": "k3", "minibatches": 2},
    "exact": {"importance_cap": 1.2, "rewards": EXACT},
    "exact, jointly": {"importance_cap": 1.2, "loss_mean": "sequence", "rewards": {**EXACT, "credit": "joint"}},
}


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with alone(tmp_path_factory.mktemp("group")):
        yield


def recipe(settings: dict[str, object]) -> Recipe:
    """The stage's settings, and the rewards' among them."""
    rl = dict(settings)
    rewards = rl.pop("rewards", {})
    stage = {"steps": 5, "optimizer": {"learning_rate": 1.0}}
    return Recipe.model_validate(
        {
            "name": "step",
            "output": "out",
            "data": {"root": "data"},
            "model": {"path": "model"},
            "stage1": stage,
            "stage2": stage,
            "rl": {**stage, "response_tokens": 16, **rl},
            "rewards": {"confidence_token_weight": 3} | rewards,  # type: ignore[operator]
            "learner": {"precision": "fp32", "tokens_per_micro_batch": 64},
        }
    )


def started_from(folder: Path, temperature: float = 1.0) -> ResponseLogprobs:
    """The model that a KL is to."""
    chat = ChatFormat(str(folder), ImageLimits())
    return ResponseLogprobs(load_model(str(folder), Learner(precision="fp32")), chat.barred_token_ids(), temperature)  # type: ignore[arg-type]


def module(folder: Path, temperature: float = 1.0) -> ResponseLogprobs:
    """The policy, some way from the model that it started from."""
    policy, generator = started_from(folder, temperature), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return policy


def alone_in_a_row(model: ResponseLogprobs, sequence: TrainingSequence) -> torch.Tensor:
    found: torch.Tensor = model(collate([[replace(sequence, branches=None)]], pad_token_id=0, image_token_id=None))
    return found


def tree_of(folder: Path, settings: Recipe) -> ConfidenceTree | None:
    if settings.rewards.confidence_gradient is ConfidenceGradient.SAMPLED:
        return None
    return confidence_tree(ChatFormat(str(folder), ImageLimits()).tokenizer, GRID)


def path_of(tree: ConfidenceTree, number: int) -> list[int]:
    return [int(tree.edge_tokens[edge]) for edge in tree.paths[number] if edge < len(tree.edge_tokens)]


def drawn_groups(folder: Path, tree: ConfidenceTree | None = None) -> list[Group]:
    """A group of each prompt: three responses, with the engine's log-probabilities off by half a nat or so.

    With a tree the first states a confidence as the tree spells it, and the second begins as if it did.
    """
    rng, chat, model = np.random.default_rng(0), ChatFormat(str(folder), ImageLimits()), module(folder)
    groups = []
    for number, prompt in enumerate(PROMPTS.values()):
        expanded, members = chat.expand(prompt), []
        for member in range(3):
            length = int(rng.integers(4, 9))
            tokens = rng.integers(70, 200, size=length).astype(np.int32)
            if tree is not None and member < 2:
                path = path_of(tree, int(rng.integers(len(tree.paths))))
                tokens = np.array([tree.before, *(path if member == 0 else path[:-1]), *tokens], np.int32)
                length = len(tokens)
            with torch.no_grad():
                own = alone_in_a_row(model, TrainingSequence(expanded, tokens, np.ones(length, np.float32))).numpy()
            engine = np.minimum(own + rng.normal(scale=0.3, size=length), -1e-3).astype(np.float32)
            spans = (VersionSpan(VERSION - 2, 0, 2), VersionSpan(VERSION - int(rng.integers(2)), 2, length))
            sample = Sample(tokens, engine, spans, FinishReason.STOP, "", 0.0, 1.0)
            correct, confidence = float(rng.integers(2)), float(rng.uniform())
            parts = {"correctness": correct, "calibration": -((confidence - correct) ** 2), "format": 1.0}
            members.append(
                Trajectory(sample, Score("a", confidence, None, correct, correct, parts, None, None, Span(1, 3)))
            )
        groups.append(Group(number, prompt.prompt_id, (), expanded.token_ids, "a", 0.0, "rollout-0", tuple(members)))
    return groups


def expected_reward(model: ResponseLogprobs, sequence: TrainingSequence) -> torch.Tensor:
    """Of the confidences that could be stated in the response's place, each a response of its own."""
    branches = sequence.branches
    assert branches is not None
    begun = sequence.response_tokens[: branches.anchor + 1].tolist()
    total = torch.zeros(())
    for number, value in enumerate(branches.values):
        tokens = np.array([*begun, *path_of(branches.tree, number)], np.int32)
        found = alone_in_a_row(model, TrainingSequence(sequence.prompt, tokens, np.ones(len(tokens), np.float32)))
        total = total + float(value) * found[len(begun) :].sum().exp()
    return total


def one_by_one(
    folder: Path, minibatches: Sequence[Sequence[Group]], settings: Recipe
) -> tuple[dict[str, torch.Tensor], list[list[float]], list[list[float]]]:
    """The weights after the step, and what the meters are means of: for all tokens, and for the confidence's."""
    rl, chat, model = settings.rl, ChatFormat(str(folder), ImageLimits()), module(folder)
    reference, tree = started_from(folder), tree_of(folder, settings)
    made = [
        [
            s
            for group in groups
            for s in rl_sequences(group, chat.expand(PROMPTS[group.prompt_id]), WEIGHTS, settings.rewards, tree)
        ]
        for groups in minibatches
    ]
    with torch.no_grad():
        first = [[alone_in_a_row(model, s).tolist() for s in own] for own in made]
        held = [[alone_in_a_row(reference, s).tolist() for s in own] for own in made]
    everything: list[list[float]] = []
    stated: list[list[float]] = []
    for own, own_first, own_held in zip(made, first, held, strict=True):
        model.zero_grad()
        for sequence, before, there in zip(own, own_first, own_held, strict=True):
            assert sequence.advantages is not None and sequence.behaviour_logprobs is not None
            assert sequence.versions is not None and sequence.confidence_mask is not None
            now = alone_in_a_row(model, sequence)
            engine, advantages = sequence.behaviour_logprobs.tolist(), sequence.advantages.tolist()
            lags = (VERSION - sequence.versions).tolist()
            slow = losses_of(rl, now.tolist(), engine, advantages, lags, before)
            pulls = kl_pulls(rl, now.tolist(), there, sequence.confidence_mask.tolist())
            divisor = {
                LossMean.TOKEN: sum(float(s.weights.sum()) for s in own),
                LossMean.SEQUENCE: len(own) * float(sequence.weights.sum()),
                LossMean.FIXED_LENGTH: len(own) * rl.response_tokens,
            }[rl.loss_mean]
            pull = [(d + k) * float(w) / divisor for (_, d), k, w in zip(slow, pulls, sequence.weights, strict=True)]
            summed = (now * torch.tensor(pull)).sum()
            if sequence.branches is not None:
                summed = summed - sequence.branches.weight / divisor * expected_reward(model, sequence)
            summed.backward()  # type: ignore[no-untyped-call]
            for p, q, r, inside in zip(now.tolist(), engine, there, sequence.confidence_mask, strict=True):
                ratio = math.exp(p - q)
                row = [abs(p - q), ratio - 1 - (p - q), ratio, math.exp(r - p) - 1 - (r - p)]
                everything.append(row)
                if inside:
                    stated.append(row)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= LEARNING_RATE * parameter.grad
    return {name: p.detach() for name, p in model.named_parameters()}, everything, stated


def step(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    minibatches: Sequence[Sequence[Group]],
    settings: Recipe,
    probe: Probe | None = None,
    temperature: float = 1.0,
) -> tuple[ResponseLogprobs, RlReport]:
    """The real rank, with a plain policy."""
    model, scheduled = module(folder, temperature), []

    def plain(*_: object, steps: int, **__: object) -> PlainPolicy:
        scheduled.append(steps)
        return PlainPolicy(model)

    monkeypatch.setattr("learner.rank.join", lambda rank: None)
    monkeypatch.setattr("learner.rl.Policy", plain)
    monkeypatch.setattr("learner.rl.confidence_tree", lambda tokenizer, _: confidence_tree(tokenizer, GRID))
    rank = RlRank(Rank(0, 1, "", 1.0), str(folder), settings, PROMPTS, ImageLimits())
    assert scheduled == [settings.rl.steps * len(minibatches)]
    return model, rank.step([[encode_group(g) for g in groups] for groups in minibatches], WEIGHTS, VERSION, probe)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_moves_the_weights_as_the_responses_one_by_one_do(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, name: str
) -> None:
    settings = recipe(STEPS[name])
    tree = tree_of(tiny_model, settings)
    groups = drawn_groups(tiny_model, tree)
    count = settings.rl.minibatches
    minibatches = [groups[number::count] for number in range(count)]
    before = {n: p.detach().clone() for n, p in module(tiny_model).named_parameters()}

    model, report = step(monkeypatch, tiny_model, minibatches, settings)

    after, everything, stated = one_by_one(tiny_model, minibatches, settings)
    for n, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach() - before[n], after[n] - before[n], rtol=2e-3, atol=2e-6)
    assert any(not torch.equal(after[n], before[n]) for n in after)
    assert report.exact_share == (None if tree is None else pytest.approx(1 / 3))
    for meters, rows in ((report.response, everything), (report.confidence, stated)):
        assert meters is not None
        *expected, reference_kl = np.mean(rows, axis=0).tolist()
        assert [meters.mismatch, meters.behaviour_kl, meters.importance_ratio] == pytest.approx(expected, rel=1e-4)
        assert (meters.masked_share > 0) is (name == "icepop")
        assert (meters.capped_share > 0) is (name != "icepop")
        assert meters.reference_kl == (pytest.approx(reference_kl, rel=1e-4) if settings.rl.kl_weight else None)


def test_the_first_group_s_longest_response_is_the_probe_where_there_is_none_yet(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    groups = drawn_groups(tiny_model)

    _, report = step(monkeypatch, tiny_model, [groups[1:]], recipe({}))

    assert report.probe_logprobs is None
    assert report.probe is not None
    assert report.probe.prompt == PROMPTS[groups[1].prompt_id]
    longest = max(groups[1].trajectories, key=lambda t: len(t.sample.tokens)).sample.tokens
    assert report.probe.tokens.tolist() == longest[:PROBE_TOKENS].tolist()


def test_the_probe_is_scored_under_the_weights_before_the_step_at_temperature_1_with_no_token_barred(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    probe = Probe(PROMPTS["p2"], np.array([80, 90, 100, 110], np.int32))
    prompt = ChatFormat(str(tiny_model), ImageLimits()).expand(probe.prompt).token_ids
    ids = torch.from_numpy(np.concatenate([prompt, probe.tokens]).astype(np.int64))[None]

    def expected(model: ResponseLogprobs) -> list[float]:
        with torch.no_grad():
            found = model.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return found[torch.arange(4), ids[0, len(prompt) :]].tolist()

    model, report = step(monkeypatch, tiny_model, [drawn_groups(tiny_model)], recipe({}), probe, temperature=0.5)

    assert report.probe is None
    assert report.probe_logprobs is not None
    assert report.probe_logprobs.tolist() == pytest.approx(expected(module(tiny_model)), abs=1e-5)
    assert report.probe_logprobs.tolist() != pytest.approx(expected(model), abs=1e-5)


def test_a_step_s_metrics_name_all_meters_twice() -> None:
    meters = TokenMeters(1.0, 2.0, 3.0, 4.0, 5.0)
    report = RlReport(0.5, None, 1e-3, meters, None, 0.25, None, 10, 1.0)

    metrics = report.metrics()

    assert [metrics[n] for n in ("mismatch", "behaviour_kl", "importance_ratio", "capped_share", "masked_share")] == [
        *astuple(meters)[:5]
    ]
    assert metrics["parity"] == 0.25
    assert metrics["confidence_tokens/mismatch"] is metrics["reference_kl"] is None
