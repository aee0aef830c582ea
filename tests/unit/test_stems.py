"""Stems: relatives share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stems import stems
from rollout.words import load_words

# Words of the lexicon whose relation anyone sees, by the way their endings differ.
FAMILIES = [
    "abuse abused abuser abusers abuses abusing abusive abusively abusiveness abusivenesses",
    "accept acceptabilities acceptability acceptable acceptance acceptant acceptation accepted accepting accepts",
    "admirable admirably admiration admirations admire admired admirer admires admiring admiringly",
    "adventure adventurer adventuresome adventuress adventurism adventuristic adventurous adventurously",
    "agitate agitation agitational agitative agitato agitator",
    "anxieties anxiety anxious anxiously",
    "beautician beautification beautifier beautiful beautifully beauty",
    "brutal brutality brutalization brutalize brutalized",
    "courage courageous courageously courageousness",
    "cute cuter cutesy cutest cutie cutiepie",
    "dead deadlock",
    "difficult difficulties difficultly difficulty",
    "favor favorite favoritisms favour favourite",
    "flirt flirtation flirtatious flirtatiousness flirty",
    "forgivable forgive forgiven forgiveness forgiver forgiving",
    "free freed freedom freely freeway",
    "friend friendless friendlier friendliness friendly friendship",
    "fun funned funnily funny",
    "glorification glorified glorious gloriously glory",
    "happier happily happiness happy",
    "horrible horribly horrid horrific horrified horror",
    "merriment merry merrymaker",
    "sad sadden saddened sadder sadly sadness",
    "terrible terribly terrific terrified terrify terror terrorist terrorization",
    "threat threaten threatened threatening threats",
    "trust trustee trustful trustier trustworthy trusty",
]


@pytest.fixture(scope="module")
def stem_of() -> dict[str, str]:
    """Stems of the lexicon's words and of those above that it lacks."""
    return stems([*(word.text for word in load_words()), *" ".join(FAMILIES).split()])


@pytest.mark.parametrize("family", FAMILIES)
def test_relatives_share_a_stem(stem_of: dict[str, str], family: str) -> None:
    assert len({stem_of[word] for word in family.split()}) == 1


def test_words_that_begin_alike_and_are_no_relatives_have_stems_of_their_own() -> None:
    words = "complain compliment competent advance adverse harass harm stink strain struggle".split()

    assert len(set(stems(words).values())) == len(words)


@given(st.lists(st.text("abdeilnrsty", min_size=1, max_size=9), unique=True))
def test_a_stem_begins_its_word_and_depends_on_no_order(words: list[str]) -> None:
    found = stems(words)

    assert all(word.startswith(stem) and stem for word, stem in found.items())
    assert stems(reversed(words)) == found


def test_what_a_word_ends_in_never_keeps_it_from_the_stem_it_begins_with() -> None:
    assert stems(["war", "warlike", "warstle"]) == {"war": "war", "warlike": "war", "warstle": "war"}
