"""A script: what a Hugging Face directory says of prompts, by transformers alone.

    python plain_transformers.py ASKED ANSWERS

ASKED is a JSON file with `model`, the name of the `kind` of class that loads it, and `conversations` as chat templates
take them. ANSWERS becomes one with the library's version and, for each, the prompt's token ids and the logits of
the token after it, in fp32.
Nothing of this project is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image


def main(asked_file: str, answers_file: str) -> None:
    """Answer."""
    asked = json.loads(Path(asked_file).read_text(encoding="utf-8"))
    processor = transformers.AutoProcessor.from_pretrained(asked["model"], trust_remote_code=False)
    kind = getattr(transformers, asked["kind"])
    model = kind.from_pretrained(asked["model"], dtype=torch.float32, trust_remote_code=False).eval()
    answers = []
    for conversation in asked["conversations"]:
        _open_pictures(conversation)
        inputs = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        answers.append({"token_ids": inputs["input_ids"][0].tolist(), "logits": logits.tolist()})
    answered = {"version": transformers.__version__, "answers": answers}
    Path(answers_file).write_text(json.dumps(answered), encoding="utf-8")


def _open_pictures(conversation: list[dict[str, Any]]) -> None:
    for message in conversation:
        for part in message["content"]:
            if isinstance(part, dict) and part["type"] == "image":
                part["image"] = Image.open(part.pop("path"))


if __name__ == "__main__":
    main(*sys.argv[1:])
