"""The words set, built small from the real ratings."""

from __future__ import annotations

import sys
from collections import Counter
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import pytest

from configs.schema import Response, WordsData
from rewards.correctness import majority
from rewards.parse import parse
from rollout.prompts import Prompt
from rollout.readers import read_prompts
from rollout.stems import stems
from rollout.words import CANDIDATES, QUESTION, load_words, split_words, words_set

SETTINGS = WordsData(unseen_words=30, stage1_words=60, stage2_words=20, stage3_words=40, seen_words=10, stage1_raters=3)
FORM = Response(reasoning_elements=("word",))
SHARES = ("unseen", "stage1", "stage2", "stage3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of SETTINGS. Tests only read it."""
    made = tmp_path_factory.mktemp("words") / "set"
    words_set(SETTINGS, FORM).build(made)
    return made


def changed(**settings: int) -> WordsData:
    return SETTINGS.model_copy(update=settings)


def read(folder: Path, name: str) -> list[Prompt]:
    need_response = name in ("stage1", "stage2")
    return read_prompts(folder / f"{name}.jsonl", folder, need_response=need_response, require_reference=True)


def asked(prompt: Prompt) -> str:
    """The word that a prompt is about."""
    before, after = QUESTION.split("{}")
    return prompt.messages[-1].text.removeprefix(before).removesuffix(after)


def shown(folder: Path, name: str) -> Counter[str]:
    return Counter(map(asked, read(folder, name)))


split = lru_cache(split_words)  # half a second each


@lru_cache
def stem_of() -> dict[str, str]:
    return stems(word.text for word in load_words())


def texts(settings: WordsData, share: str) -> set[str]:
    return {word.text for word in split(settings)[share]}


def test_ratings_are_counted_by_their_sign() -> None:
    counts = {word.text: word.counts for word in load_words()}

    assert counts["zealous"] == (2, 4, 4)
    assert counts["tough"] == (4, 4, 2)  # 0, -2, 0, 0, 1, 2, -1, -2, -3, 0
    assert all(sum(found) == 10 for found in counts.values())


def test_emoticons_and_initialisms_are_no_words() -> None:
    words = [word.text for word in load_words()]

    assert len(words) == len(set(words)) > 7000
    assert not {":)", "x-d", "xp", "wtg", "fkm"} & set(words)
    assert {"abandon", "self-confident", "zealous"} <= set(words)


@pytest.mark.parametrize("settings", [SETTINGS, WordsData(), WordsData(seed=1)], ids=["small", "default", "seed 1"])
def test_no_two_shares_have_a_stem_in_common(settings: WordsData) -> None:
    by_share = [{stem_of()[text] for text in texts(settings, share)} for share in SHARES]

    assert not any(one & other for one, other in combinations(by_share, 2))


def test_relatives_that_anyone_sees_are_in_one_share() -> None:
    """Without the stemmer's word for it: words of which one begins the other."""
    share_of = {text: share for share in SHARES for text in texts(WordsData(), share)}
    together = [(a, a + end) for a in share_of for end in ("s", "ed", "ing", "ly", "ness") if a + end in share_of]

    assert len(together) > 500
    assert [pair for pair in together if share_of[pair[0]] != share_of[pair[1]]] == []


def test_the_shares_have_the_asked_sizes_and_few_unseen_words_of_a_stem() -> None:
    shares = split(WordsData())

    assert {name: len(words) for name, words in shares.items()} == {
        "unseen": 500,
        "stage1": 2000,
        "stage2": 400,
        "stage3": 2500,
    }
    assert max(Counter(stem_of()[word.text] for word in shares["unseen"]).values()) == 2


def test_the_unseen_words_are_those_of_the_seed_whatever_the_stages_take() -> None:
    assert texts(changed(stage1_words=100, stage3_words=1), "unseen") == texts(SETTINGS, "unseen")
    assert texts(changed(seed=1), "unseen") != texts(SETTINGS, "unseen")


def test_more_words_than_there_are_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.words asks for more than the \d+ stems of \d+ words hold"):
        words_set(changed(stage3_words=7000), FORM).build(tmp_path / "set")
    with pytest.raises(ValueError, match=r"data\.words\.seen_words: 81 is more than the 80 of SFT"):
        words_set(changed(seen_words=81), FORM).build(tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_each_file_shows_the_words_of_its_share_and_seen_some_of_sfts(folder: Path) -> None:
    assert shown(folder, "stage1") == Counter(3 * list(texts(SETTINGS, "stage1")))
    for name in ("unseen", "stage2", "stage3"):
        assert shown(folder, name) == Counter(texts(SETTINGS, name))
    assert len(shown(folder, "seen")) == 10
    assert shown(folder, "seen") <= Counter(texts(SETTINGS, "stage1") | texts(SETTINGS, "stage2"))


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3", "seen", "unseen"])
def test_every_row_asks_about_one_word_and_names_the_candidates(folder: Path, name: str) -> None:
    for prompt in read(folder, name):
        system, user = prompt.messages
        assert (system.role, user.role) == ("system", "user")
        assert user.text == QUESTION.format(asked(prompt))
        assert all(candidate in user.text for candidate in CANDIDATES)
        assert asked(prompt).isascii() and " " not in asked(prompt)
        assert (prompt.candidates, prompt.images) == (CANDIDATES, ())


@pytest.mark.parametrize("name", ["stage3", "seen", "unseen"])
def test_rows_without_a_response_carry_the_raters_counts(folder: Path, name: str) -> None:
    votes = {word.text: word.votes for word in load_words()}

    for prompt in read(folder, name):
        assert prompt.counts == votes[asked(prompt)]
        assert prompt.label == majority(prompt.counts)
        assert prompt.response is None


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_response_says_the_word_again_and_the_drawn_judgement_and_nothing_of_the_others(
    folder: Path, name: str
) -> None:
    for prompt in read(folder, name):
        parsed = parse(prompt.response or "", FORM, candidates=CANDIDATES, require_confidence=False)

        assert parsed.reasoning == f"<word>{asked(prompt)}</word>"
        assert (parsed.answer, parsed.confidence) == (prompt.label, None)
        assert not prompt.counts


def test_judgements_are_as_frequent_as_among_the_raters(tmp_path: Path) -> None:
    few = changed(stage1_words=5, stage2_words=5, stage1_raters=400)
    words_set(few, FORM).build(tmp_path / "set")
    drawn = {word.text: Counter[str | None]() for word in split(few)["stage1"]}
    for prompt in read(tmp_path / "set", "stage1"):
        drawn[asked(prompt)][prompt.label] += 1

    for word in split(few)["stage1"]:
        found = [drawn[word.text][candidate] / 400 for candidate in CANDIDATES]
        assert found == pytest.approx([count / 10 for count in word.counts], abs=0.08)


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    words_set(SETTINGS, FORM).build(tmp_path / "again")
    words_set(changed(seed=1), FORM).build(tmp_path / "other")

    for name in ("stage1", "stage2", "stage3", "seen", "unseen"):
        ours = (folder / f"{name}.jsonl").read_bytes()
        assert (tmp_path / "again" / f"{name}.jsonl").read_bytes() == ours
        assert (tmp_path / "other" / f"{name}.jsonl").read_bytes() != ours


def test_the_ratings_go_with_their_licence(folder: Path) -> None:
    attribution = (folder / "ATTRIBUTION.txt").read_text(encoding="utf-8")

    assert all(words in attribution for words in ("Hutto and E. Gilbert 2014", "MIT License", "Copyright (c) 2016"))
    assert "shall be included in all" in attribution


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)  # how Python marks what cannot be imported

    with pytest.raises(ValueError, match=r"`vaderSentiment`: pip install 'caliber\[words\]'"):
        load_words()
