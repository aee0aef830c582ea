"""A tokenizer whose vocabulary can be read: the end token, every byte, and the tags, a token each."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END = 0
TAGS = [f"<{slash}{name}>" for name in ("think", "answer", "confidence", "element") for slash in ("", "/")]


@cache
def tokenizer() -> Tokenizer:
    """The end token is number END."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({"<|im_end|>": END, **{name: id_ for id_, name in enumerate(bytes_, 1)}}, []))
    made.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    made.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made
