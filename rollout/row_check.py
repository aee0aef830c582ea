"""What a row must mean: turns in order, a picture for each placeholder, a reference among the candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rewards.correctness import normalise_answer
from rollout.picture_check import PictureCheck
from rollout.rows import PLACEHOLDER, Row


class RowCheck:
    """Says what is wrong with the rows of one file; remembers the ids it has seen."""

    def __init__(self, pictures: PictureCheck, *, need_response: bool, require_reference: bool) -> None:
        self._pictures = pictures
        self._need_response = need_response
        self._require_reference = require_reference
        self._place_by_id: dict[str, str] = {}

    def faults(self, place: str, row: Row) -> list[str]:
        """Everything that is wrong with the row at `place`, in the order of its keys."""
        return [
            *self._id_faults(place, row),
            *_turn_faults(row),
            *self._response_faults(row),
            *self._picture_faults(row),
            *_candidate_faults(row),
            *self._reference_faults(row),
        ]

    def _id_faults(self, place: str, row: Row) -> Iterator[str]:
        first = self._place_by_id.setdefault(row.row_id, place)
        if first != place:
            yield f"id {row.row_id!r} is {first}'s too: ids must be unique in a file"

    def _response_faults(self, row: Row) -> Iterator[str]:
        if row.response is None:
            if self._need_response and row.messages:
                yield "has no response to train on: the last message must be the assistant's"
        elif PLACEHOLDER in row.response:
            yield f'the response holds "{PLACEHOLDER}", but a model answers in text alone: reword it'

    def _picture_faults(self, row: Row) -> Iterator[str]:
        places = sum(message.text.count(PLACEHOLDER) for message in row.question)
        if places != len(row.images):
            yield f"got {len(row.images)} images for {places} image places in the messages, expected as many"
        for image in row.images:
            fault = self._pictures.fault(image)
            if fault is not None:
                yield fault

    def _reference_faults(self, row: Row) -> Iterator[str]:
        if row.label is None and row.counts is None:
            if self._require_reference:
                yield "has no reference: give it a label, or counts of annotators' votes"
        elif row.counts is None:
            yield from _label_faults(row)
        else:
            faults = [*_label_faults(row), *_count_faults(row, row.counts)]
            yield from faults or _disagreement(row, row.counts)


def spelling(row: Row, answer: str) -> str:
    """The candidate that an answer is, as the candidates spell it; the answer itself where there is none."""
    wanted = normalise_answer(answer)
    return next((name for name in row.candidates if normalise_answer(name) == wanted), answer)


def _turn_faults(row: Row) -> Iterator[str]:
    if not row.messages:
        yield "has no messages"
    elif not row.question or row.question[-1].role != "user":
        yield "the last message before the response must be the user's"
    for position, message in enumerate(row.messages, start=1):
        if not message.text.strip():
            yield f"message {position} ({message.role}) is empty"


def _candidate_faults(row: Row) -> Iterator[str]:
    known: dict[str, str] = {}
    for candidate in row.candidates:
        normalised = normalise_answer(candidate)
        if normalised in known:
            yield f"the candidates {known[normalised]!r} and {candidate!r} are the same answer"
        known[normalised] = candidate


def _label_faults(row: Row) -> Iterator[str]:
    if row.label is not None and row.candidates and spelling(row, row.label) not in row.candidates:
        yield f"the label {row.label!r} is not among the candidates {_listed(row)}"


def _count_faults(row: Row, counts: Mapping[str, int]) -> Iterator[str]:
    if not any(counts.values()):
        yield "the counts hold no vote: leave them out, or give a label"
    if not row.candidates:
        yield "has counts without candidates: list what the annotators could choose"
        return
    seen: set[str] = set()
    for name in counts:
        candidate = spelling(row, name)
        if candidate not in row.candidates:
            yield f"the counts name {name!r}, which is not among the candidates {_listed(row)}"
        elif candidate in seen:
            yield f"the counts name {candidate!r} twice"
        seen.add(candidate)


def _disagreement(row: Row, counts: Mapping[str, int]) -> Iterator[str]:
    if row.label is None:
        return
    votes = {spelling(row, name): count for name, count in counts.items()}
    got, most = votes.get(spelling(row, row.label), 0), max(votes.values())
    if got < most:
        yield f"the label {row.label!r} has {got} votes, but another candidate {most}: drop one of them"


def _listed(row: Row) -> str:
    shown = ", ".join(row.candidates[:12])
    return shown if len(row.candidates) <= 12 else f"{shown}, … ({len(row.candidates)} in all)"
