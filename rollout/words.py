"""The words set: words that people rated, and how many rated them how.

Ratings are of the VADER lexicon (Hutto and Gilbert 2014, MIT License, package `vaderSentiment`): each word
was rated by ten people from -4 to 4. Here a rating says negative, neutral (0) or positive. The package comes with the
extra `words`.

Every share has words of its own, and all words of a stem go to one share: what is said of a word that no stage
showed was not learnt from its plural.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from configs.schema import Response, WordsData
from rewards.correctness import draw_annotator
from rollout.built_set import ATTRIBUTION, BuiltSet, sft_response, write_rows
from rollout.packages import package_folder
from rollout.stems import stems

CANDIDATES = ("negative", "neutral", "positive")
SYSTEM = "You judge words."  # short: chat templates that fill in one of their own would make prompts twice as long
# As a person would ask it: a pretrained model knows more of "abandon" there than of the bare word.
QUESTION = 'How do most people feel about the word "{}": negative, neutral or positive?'
WHOSE_WORK = (
    "Words and ratings: the VADER lexicon of vaderSentiment, C.J. Hutto and E. Gilbert 2014 (VADER: A Parsimonious\n"
    "Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM-14), counted by sign, under this licence:\n\n"
)

_FIRST_WORD = "abandon"  # the lexicon's emoticons and initialisms come before it
_WORD = re.compile(r"(?=.*[aeiouy])[a-z]+(?:[-'][a-z]+)*")
_UNSEEN_OF_A_STEM = 2  # at most: relatives are rated alike, and say less than as many strangers


@dataclass(frozen=True, slots=True)
class Word:
    """A word that people rated."""

    text: str
    counts: tuple[int, int, int]  # raters, in the order of CANDIDATES

    @property
    def votes(self) -> dict[str, int]:
        """Raters by candidate."""
        return dict(zip(CANDIDATES, self.counts, strict=True))


def load_words() -> list[Word]:
    """The rated words in the lexicon's order, each once; its emoticons and initialisms are left out."""
    folder = package_folder("vaderSentiment", "the words set", "pip install 'caliber[words]'")
    lines = (folder / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]  # word, mean, standard deviation, the ratings
    start = [text for text, *_ in rows].index(_FIRST_WORD)
    return [Word(text, _by_sign(json.loads(given))) for text, _, _, given in rows[start:] if _WORD.fullmatch(text)]


def _by_sign(ratings: Sequence[int]) -> tuple[int, int, int]:
    signs = np.sign(ratings).tolist()
    return signs.count(-1), signs.count(0), signs.count(1)


def split_words(settings: WordsData) -> dict[str, list[Word]]:
    """Words by share: `unseen`, `stage1`, `stage2`, `stage3`; no stem is in two of them.

    The unseen ones are drawn first: they stay the same when the sizes of the others change.
    Raises ValueError where the stems do not last.
    """
    by_stem: defaultdict[str, list[Word]] = defaultdict(list)
    words = load_words()
    stem_of = stems(word.text for word in words)
    for word in words:
        by_stem[stem_of[word.text]].append(word)
    rng = np.random.default_rng(settings.seed)
    queue = iter(rng.permutation(sorted(by_stem)).tolist())
    return {
        "unseen": _take(settings.unseen_words, queue, by_stem, rng, of_a_stem=_UNSEEN_OF_A_STEM),
        "stage1": _take(settings.stage1_words, queue, by_stem, rng),
        "stage2": _take(settings.stage2_words, queue, by_stem, rng),
        "stage3": _take(settings.stage3_words, queue, by_stem, rng),
    }


def _take(
    size: int,
    queue: Iterator[str],
    by_stem: dict[str, list[Word]],
    rng: np.random.Generator,
    of_a_stem: int | None = None,
) -> list[Word]:
    """So many words of the next stems; what is left of the last stem belongs to no share."""
    taken: list[Word] = []
    while len(taken) < size:
        stem = next(queue, None)
        if stem is None:
            total = sum(map(len, by_stem.values()))
            raise ValueError(
                f"data.words asks for more than the {len(by_stem)} stems of {total} words hold: lower its numbers "
                f"(each stem of the unseen words counts {_UNSEEN_OF_A_STEM} at most, and gives none to others)"
            )
        own = by_stem[stem]
        taken += [own[place] for place in rng.permutation(len(own))[:of_a_stem]]
    return sorted(taken[:size], key=lambda word: word.text)


def words_set(settings: WordsData, response: Response) -> BuiltSet:
    """The set that a recipe's settings describe.

    Files: stage1, stage2 (reasoning and one rater's judgement a row), stage3, seen, unseen (the raters' counts).
    """

    def write(folder: Path) -> dict[str, int]:
        split = split_words(settings)
        rng = np.random.default_rng([settings.seed, 1])
        taught = split["stage1"] + split["stage2"]
        if settings.seen_words > len(taught):
            raise ValueError(f"data.words.seen_words: {settings.seen_words} is more than the {len(taught)} of SFT")
        seen = [taught[place] for place in sorted(rng.choice(len(taught), settings.seen_words, replace=False))]
        shown = {
            "stage1": (row for word in split["stage1"] for row in _taught(word, settings.stage1_raters, response, rng)),
            "stage2": (row for word in split["stage2"] for row in _taught(word, 1, response, rng)),
            "stage3": map(_asked, split["stage3"]),
            "seen": map(_asked, seen),
            "unseen": map(_asked, split["unseen"]),
        }
        for name, rows in shown.items():
            write_rows(folder / f"{name}.jsonl", rows)
        (folder / ATTRIBUTION).write_text(WHOSE_WORK + _licence(), encoding="utf-8")
        return {name: len(words) for name, words in split.items()}

    return BuiltSet("words", settings, response, write)


def _taught(word: Word, rows: int, response: Response, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    for number in range(rows):
        # One rater's judgement a row: sampled answers then follow the raters' shares.
        judgement = draw_annotator(word.votes, rng)
        reply = sft_response({"word": word.text}, response.reasoning_elements, judgement)
        messages = [*_question(word), {"role": "assistant", "content": reply}]
        yield _row(f"{word.text}-{number}", messages, {"label": judgement})


def _asked(word: Word) -> dict[str, object]:
    return _row(word.text, _question(word), {"counts": word.votes})


def _question(word: Word) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION.format(word.text)}]


def _row(row_id: str, messages: list[dict[str, str]], reference: dict[str, object]) -> dict[str, object]:
    return {"id": row_id, "task": "words", "messages": messages, "candidates": CANDIDATES, "reference": reference}


def _licence() -> str:
    """The licence's text, which goes where the ratings go."""
    files = distribution("vaderSentiment").files or []
    return "".join(file.read_text(encoding="utf-8") for file in files if file.name == "LICENSE.txt")
