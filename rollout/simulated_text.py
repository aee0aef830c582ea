"""Responses of a recipe's form for simulated engines: reasoning of random words, an answer, a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from configs.response import Response
from rollout.simulated import END_TOKEN

WORDS = (
    " the face looks at us with open eyes and a mouth that may smile or not while around it light and colours of an"
    " evening speak of joy or of fear as others would say who know it from elsewhere, so nobody can be very sure"
)


class ResponseWriter:
    """A `rollout.simulated.Writer`. Every response is well formed; answers and confidences are drawn evenly."""

    def __init__(self, tokenizer: Tokenizer, form: Response, answers: Sequence[str]) -> None:
        """`tokenizer` must decode what it encoded piece by piece, as byte-level ones do."""
        *early, last = form.reasoning_elements or (None,)
        opened = "<think>" + "".join(f"<{name}> so</{name}>" for name in early)
        closed = "</think>" if last is None else f"</{last}></think>"

        def ids(text: str) -> NDArray[np.int32]:
            return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)

        self._words = ids(WORDS)
        self._head = ids(opened if last is None else f"{opened}<{last}> so")
        end = np.array([END_TOKEN], dtype=np.int32)
        self._tails = [
            np.concatenate([ids(f"{closed}<answer>{answer}</answer><confidence>{stated}</confidence>"), end])
            for answer, stated in product(answers, form.confidences)
        ]

    def __call__(self, draws: np.random.Generator, wanted: int) -> NDArray[np.int32]:
        """Ids [T] of a response; T is `wanted`, or the length of the shortest response where that is longer."""
        tail = self._tails[draws.integers(len(self._tails))]
        number = max(0, wanted - len(self._head) - len(tail))
        first = draws.integers(len(self._words))
        words = self._words[(first + np.arange(number)) % len(self._words)]
        return np.concatenate([self._head, words, tail])
