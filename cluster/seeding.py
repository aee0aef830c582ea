"""Confidences for stage 2, from how sure the stage-1 model is of its own answers.

Seeds must carry information, or reinforcement learning collapses to one constant; and spread over the
whole range, or it never finds the low ones. So for each prompt the model answers a few times or many, some of
its responses become rows, each stating the share of those that gave its answer or the probability that
this one was sampled with, and a few rows state a confidence drawn from the whole range. The rows are
drawn as the responses fell: were each different answer to get as many, stage 2 would unlearn how often
to give it. And no more noise than that: what stage 2 cannot predict it does not learn. Annotators are
asked only where a recipe says so (`annotators`): calibration is for stage 3 to learn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from configs.schema import Response, Seeding, SeedSource
from rewards.bins import equal_width_bins
from rewards.parse import ParsedResponse, parse
from rollout.answer_probability import answer_probability
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, Group, Sample


@dataclass(frozen=True, slots=True)
class SeededRows:
    """Stage 2's rows, and what they hold."""

    prompts: list[Prompt]  # with responses that state a confidence
    confidences: list[float]
    skipped: int  # prompts without one well-formed response

    def summary(self) -> str:
        """One line for the log."""
        counts = np.bincount(equal_width_bins(np.array(self.confidences), 10), minlength=10)
        return (
            f"{len(self.prompts)} rows, mean confidence {np.mean(self.confidences):.2f}, "
            f"by tenths {counts.tolist()}, {self.skipped} prompts without a well-formed response"
        )


def seed_by_samples(
    prompts: Sequence[Prompt],
    groups: Sequence[Group],
    seeding: Seeding,
    response: Response,
    seed: int,
    tokenizer: Tokenizer,
) -> SeededRows:
    """Rows from the stage-1 model's own samples, `groups[i]` being those of `prompts[i]`.

    `tokenizer` is the model's: the answer's probability is that of its tokens.
    """
    rng = np.random.default_rng([seed, 4])
    rows: list[Prompt] = []
    confidences: list[float] = []
    skipped = 0
    for prompt, group in zip(prompts, groups, strict=True):
        kept = _well_formed(prompt, group, response)
        if not kept:
            skipped += 1
            continue
        votes = Counter(parsed.answer for _, parsed in kept)
        chosen = rng.choice(len(kept), size=min(seeding.rows_per_prompt, len(kept)), replace=False)
        for number, (sample, parsed) in enumerate(kept[place] for place in chosen):
            if seeding.source is SeedSource.AGREEMENT:
                share = _smoothed(votes[parsed.answer], len(kept), seeding)
            else:
                found = answer_probability(sample, tokenizer, response, prompt.candidates, require_confidence=False)
                assert found is not None, "a well-formed response has an answer"
                share = found
            confidence = _stated(share, seeding, response.confidences, rng)
            stated = f"{sample.text}<confidence>{confidence}</confidence>"
            rows.append(replace(prompt, prompt_id=f"{prompt.prompt_id}#{number}", response=stated))
            confidences.append(response.confidences[confidence])
    if not rows:
        raise ValueError("the stage-1 model gave no well-formed response: train it longer (stage1.steps)")
    return SeededRows(rows, confidences, skipped)


def seed_by_annotators(prompts: Sequence[Prompt], seeding: Seeding, response: Response, seed: int) -> SeededRows:
    """Rows from the data's own responses, each stating the annotators' share of its answer."""
    assert seeding.source is SeedSource.ANNOTATORS
    rng = np.random.default_rng([seed, 4])
    rows: list[Prompt] = []
    confidences: list[float] = []
    for prompt in prompts:
        parsed = _parse(prompt.response or "", prompt, response, truncated=False)
        if parsed.answer is None or not prompt.counts:
            raise ValueError(
                f"prompt {prompt.prompt_id}: seeding.source annotators needs a well-formed response and annotators' "
                "counts in every row of stage 2; use seeding.source: agreement, or add them"
            )
        for number in range(seeding.rows_per_prompt):
            votes, total = prompt.counts.get(parsed.answer, 0), sum(prompt.counts.values())
            confidence = _stated(_smoothed(votes, total, seeding), seeding, response.confidences, rng)
            text = f"{prompt.response}<confidence>{confidence}</confidence>"
            rows.append(replace(prompt, prompt_id=f"{prompt.prompt_id}#{number}", response=text))
            confidences.append(response.confidences[confidence])
    return SeededRows(rows, confidences, 0)


def write_seeds(path: Path, rows: Sequence[Prompt]) -> None:
    """Keep rows as JSONL, whole or not at all."""
    aside = path.with_name(f".{path.name}")
    lines = (json.dumps({"id": row.prompt_id, "images": row.images, "response": row.response}) for row in rows)
    aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    aside.rename(path)


def read_seeds(path: Path, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The rows that `write_seeds` kept, given the prompts they were made from."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        replace(by_id[row["id"].rpartition("#")[0]], prompt_id=row["id"], response=row["response"]) for row in found
    ]


def _well_formed(prompt: Prompt, group: Group, response: Response) -> list[tuple[Sample, ParsedResponse]]:
    samples = [trajectory.sample for trajectory in group.trajectories]
    read = [(s, _parse(s.text, prompt, response, truncated=s.finish_reason is FinishReason.LENGTH)) for s in samples]
    return [(sample, parsed) for sample, parsed in read if parsed.malformed is None]


def _parse(text: str, prompt: Prompt, response: Response, *, truncated: bool) -> ParsedResponse:
    return parse(
        text,
        response,
        candidates=prompt.candidates,
        truncated=truncated,
        require_confidence=False,
    )


def _smoothed(votes: int, total: int, seeding: Seeding) -> float:
    return (votes + seeding.prior) / (total + 2 * seeding.prior)


def _stated(share: float, seeding: Seeding, grid: Mapping[str, float], rng: np.random.Generator) -> str:
    """The grid's nearest to the share, or now and then to anything."""
    wanted = rng.uniform() if rng.uniform() < seeding.uniform_share else share
    return min(grid, key=lambda stated: abs(grid[stated] - wanted))
