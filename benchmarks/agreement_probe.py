"""How well raters' agreement could be told from what a model of the words recipe computes.

    python -m benchmarks.agreement_probe MODEL configs/words/words.yaml seed=1 data.words.seed=1 --json probe.json

A ridge regression on the model's hidden states before its likeliest answer and after it, fitted on other rated words
than the recipe's unseen ones: on the share of their ten raters that the answer has, which no stage is ever shown, and
on what one rater drawn of them says. Printed is what its confidences would come to on the unseen words, by the
number of words it is fitted on, beside the probability of the answer and a constant.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM

from benchmarks.report import Figure, Report, figure
from cluster.quiet import quiet
from configs.load import load_recipe
from configs.schema import Recipe
from rewards.parse import render
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Message, Prompt
from rollout.words import CANDIDATES, QUESTION, SYSTEM, Word, split_words

_SIZES = (600, 1200, 2400)  # words that a probe is fitted on
_PENALTIES = np.logspace(1, 6, 16)
_DEPTHS = (1 / 2, 2 / 3, 5 / 6, 1)  # layers whose states it sees, of all
_WORDS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Read:
    """What a model makes of words."""

    states: NDArray[np.float32]  # [words, features]
    answers: NDArray[np.int64]  # [words] index in CANDIDATES
    probabilities: NDArray[np.float32]  # [words] of the answer

    def shares(self, words: Sequence[Word]) -> NDArray[np.float64]:
        """[words] raters' share of the answer."""
        return np.array(
            [word.counts[answer] / sum(word.counts) for word, answer in zip(words, self.answers, strict=True)]
        )


class Reader:
    """A model, and the recipe's form of a response."""

    def __init__(self, model_dir: str, recipe: Recipe) -> None:
        self._chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
        self._elements = recipe.response.reasoning_elements
        self._model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).eval()

    def read(self, words: Sequence[Word]) -> Read:
        """Answers, and the states before and after them."""
        batches = [self._batch(words[at : at + _WORDS_AT_ONCE]) for at in range(0, len(words), _WORDS_AT_ONCE)]
        states, answers, probabilities = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
        return Read(states, answers, probabilities)

    @torch.no_grad()
    def _batch(self, words: Sequence[Word]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        forms = [self._responses(word) for word in words]
        before, logits = self._last([form[0].partition("<answer>")[0] + "<answer>" for form in forms])
        probabilities = logits.softmax(-1)[:, self._first_tokens(forms[0])]
        answers = probabilities.argmax(1)
        ends = [
            form[answer].partition("</answer>")[0] + "</answer><confidence>"
            for form, answer in zip(forms, answers, strict=True)
        ]
        after, _ = self._last(ends)
        return torch.cat([before, after, probabilities.log()], 1), answers, probabilities.max(1).values

    def _responses(self, word: Word) -> list[str]:
        """The prompt and the response with each of the candidates."""
        prompt = Prompt(word.text, "words", (Message("system", SYSTEM), Message("user", QUESTION.format(word.text))))
        asked = self._chat.render(prompt).text
        return [asked + render(dict.fromkeys(self._elements, word.text), answer, None) for answer in CANDIDATES]

    def _first_tokens(self, form: Sequence[str]) -> list[int]:
        """The tokens by which the candidates begin."""
        tokens = [self._tokens(text) for text in form]
        parting = next(place for place, found in enumerate(zip(*tokens, strict=False)) if len(set(found)) > 1)
        return [found[parting] for found in tokens]

    def _tokens(self, text: str) -> list[int]:
        return self._chat.tokenizer(text, add_special_tokens=False).input_ids

    def _last(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, features] and [n, vocabulary] at the last token of each text."""
        padded = self._chat.tokenizer(  # on the left: rotary positions are relative, so that it shifts nothing
            list(texts), add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        output = self._model(**padded, output_hidden_states=True, logits_to_keep=1)
        layers = len(output.hidden_states) - 1
        states = [output.hidden_states[round(depth * layers)][:, -1].float() for depth in _DEPTHS]
        return torch.cat(states, 1), output.logits[:, -1].float()


def told(
    name: str, confidence: NDArray[np.float64], share: NDArray[np.float64], agrees: NDArray[np.bool_]
) -> list[Figure]:
    """What confidences come to; one that is the same for all words ranks none of them."""
    excess = figure(f"{name}: excess", "", [float(((confidence - share) ** 2).mean())], 4)
    if np.ptp(confidence) == 0:
        return [excess]
    return [excess, figure("  AUROC", "", [float(roc_auc_score(agrees, confidence))], 3)]


def main() -> None:
    """Fit, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model of the recipe: stage 1's or 2's")
    parser.add_argument("recipe", help="the words recipe")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the recipe, as the model was trained with")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    quiet()
    report = Report(given)
    recipe = load_recipe(Path(given.recipe), given.overrides)
    if recipe.data.words is None:
        parser.error(f"{given.recipe} has no data.words: the probe is about rated words")
    split, rng = split_words(recipe.data.words), np.random.default_rng(0)
    unseen = split.pop("unseen")
    others = [word for share in split.values() for word in share]
    fitted_on = [others[place] for place in rng.permutation(len(others))[: max(_SIZES)]]
    reader = Reader(given.model, recipe)
    fit, held_out = reader.read(fitted_on), reader.read(unseen)
    share = held_out.shares(unseen)
    agrees = share == [max(word.counts) / sum(word.counts) for word in unseen]
    figures = [
        figure("answers that are the majority's", "", [float(agrees.mean())], 3),
        *told("constant", np.full(len(share), share.mean()), share, agrees),
        *told("probability of the answer", held_out.probabilities.astype(float), share, agrees),
    ]
    shares = fit.shares(fitted_on)
    verdicts = (rng.random(len(shares)) < shares).astype(float)
    for size in _SIZES:
        for name, target in (("ten raters", shares), ("one rater", verdicts)):
            probe = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(fit.states[:size], target[:size])
            predicted = probe.predict(held_out.states).clip(0, 1)
            figures += told(f"probe, {size} words, {name} each", predicted, share, agrees)
    report.add(f"{len(unseen)} unseen words", figures)
    report.finish()


if __name__ == "__main__":
    main()
