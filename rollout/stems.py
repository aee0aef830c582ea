"""Stems of English words, near enough that a word and its relatives go to the same side of a split.

Suffixes are cut off as long as they can be, and a stem that another begins is counted to that other: `warmly`,
`warmth` and `warmer` with `warm`, and compounds such as `freeway` with `free`. Approximate by design, and on the
side of too much: strangers put together (`fund` with `fun`) cost a split some of its variety, relatives kept apart
would have a word tested whose sister was trained on. What it does miss changes inside the word: `thief` and `thieve`.
"""

from __future__ import annotations

from collections.abc import Iterable

# Letters that may not be cut away: shorter stems would swallow the lexicon.
_LETTERS_KEPT = 4  # of a single word
_LETTERS_BEGIN = 3  # of a stem that others are counted to: `sad`, `war`

_ENDINGS = (
    "s y ly ily ness nesses ful less some ship ships ish "
    "d ed ied ies es er ers ier iers est iest ing ings en "
    "ment ments ion ions ation ations ition itions or ors ator ators "
    "ist ists ism isms al als ial ially ic ics ical ically ific "
    "ive ives ative atives ous eous ious ity ities ty ties "
    "able ables ably ible ibly ability abilities ibility ibilities "
    "ance ances ence ences ancy ancies ency encies ant ants ent ents "
    "ate ates ated ating ify ifies ified ifying ize izes ized izing ise ises ised ising "
    "e ee ees ess esses ard ards age ages ary aries ory ories"
)
_SUFFIXES = tuple(sorted(_ENDINGS.split(), key=len, reverse=True))


def stems(words: Iterable[str]) -> dict[str, str]:
    """The stem of each word, in lower case; it depends on the other words, which may hold a shorter one."""
    cut = {word: _cut(word) for word in words}
    known = set(cut.values())
    return {word: _counted_to(stem, known) for word, stem in cut.items()}


def _cut(word: str) -> str:
    stem = word.lower().replace("our", "or")  # favour, favor
    while True:
        suffix = next((s for s in _SUFFIXES if stem.endswith(s) and len(stem) - len(s) >= _LETTERS_KEPT), None)
        if suffix is None:
            return stem
        stem = stem.removesuffix(suffix)


def _counted_to(stem: str, known: set[str]) -> str:
    beginnings = (stem[:length] for length in range(_LETTERS_BEGIN, len(stem)))
    return next((beginning for beginning in beginnings if beginning in known), stem)
