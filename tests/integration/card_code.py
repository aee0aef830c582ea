"""The code on a model card, in a process of its own that knows nothing of this project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = ("transformers", "vLLM")
_PICTURE = {  # in place of what the card's messages have for one
    "transformers": '{"type": "image", "image": picture}',
    "vLLM": '{"type": "image_pil", "image_pil": picture}',
}


def printed(card: Path, library: str, shown: str, named: Mapping[str, str], picture: Path | None = None) -> str:
    """What the card's code for a library prints, with an expression that is `shown` at its end.

    `named` are words of it to replace, such as those that the card says to.
    """
    text = card.read_text(encoding="utf-8")
    (messages,) = re.findall(r"```json\n(.+?)\n```", text, re.DOTALL)
    reader, *uses = re.findall(r"```python\n(.+?)\n```", text, re.DOTALL)
    use = dict(zip(LIBRARIES, uses, strict=True))[library]
    for word, meant in named.items():
        use = use.replace(word, meant)
    opened = ""
    if picture is not None:
        messages = re.sub(r'\{\s*"type": "image"\s*\}', _PICTURE[library], messages)
        opened = f"from PIL import Image\npicture = Image.open({str(picture)!r})\n"
    last = "    " * (library == "vLLM") + f"print({shown}, flush=True)"
    script = card.parent.parent / f"by_{library}.py"
    script.write_text("\n".join([f"{opened}messages = {messages}", reader, use, last]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=script.parent,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},  # GiB; by itself it takes most of the machine's memory
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
