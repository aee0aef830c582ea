"""Which files the stages read, and the sets that can be built."""

from __future__ import annotations

from pydantic import Field, model_validator

from configs.choices import QUESTIONS, Column
from configs.section import NonNegativeInt, PositiveFloat, PositiveInt, Section


class EmojiData(Section):
    """What `caliber data emoji` builds."""

    annotators_at_least: PositiveInt = 20
    """Emoji with fewer annotations than this are left out."""
    sft_emoji: PositiveInt = 60
    """Emoji that stages 1 and 2 show, and stage 3 shows again: the seen ones."""
    stage2_emoji: PositiveInt = 10
    """Emoji that stage 2 is the first to show."""
    rl_emoji: PositiveInt = 40
    """Emoji that stage 3 is the first to show."""
    test_emoji: PositiveInt = 60
    """Emoji that no stage shows."""
    stage1_pictures: PositiveInt = 64
    """Varied pictures of each emoji in stage 1's file, each with one annotator's judgement."""
    stage2_pictures: PositiveInt = 16
    """Varied pictures of each emoji in stage 2's file."""
    stage3_pictures: PositiveInt = 16
    """Varied pictures of each emoji in stage 3's file."""
    eval_pictures_per_emoji: PositiveInt = 4
    """Varied pictures of each emoji in each evaluation file."""
    image_size: PositiveInt = 56
    """Side of a picture, pixels."""
    seed: NonNegativeInt = 0
    """Seed of the splits, the pictures and the drawn annotators."""


class WordsData(Section):
    """What `caliber data words` builds: words that people rated. All words of one stem go to one share."""

    unseen_words: PositiveInt = 500
    """Words that no stage shows, two of a stem at most."""
    stage1_words: PositiveInt = 2000
    """Words of stage 1."""
    stage2_words: PositiveInt = 400
    """Words of stage 2: none of stage 1's, or a model that learnt those would agree with itself too often."""
    stage3_words: PositiveInt = 2500
    """Words of stage 3: none that an SFT stage showed."""
    seen_words: PositiveInt = 200
    """Words of the SFT stages that are evaluated on, drawn at random."""
    stage1_raters: PositiveInt = 2
    """Rows of each word in stage 1's file, each with the judgement of one rater."""
    seed: NonNegativeInt = 0
    """Seed of the splits and of the drawn raters."""


class Data(Section):
    """The files of each stage, or folders of parquet or of a Hugging Face dataset; paths are relative to `root`."""

    root: str
    """Folder that the files and the pictures lie under."""
    stage1: str = "stage1.jsonl"
    """Rows of stage 1: prompt, structured reasoning, answer."""
    stage2: str = "stage2.jsonl"
    """Rows of stage 2: the same; confidences are added by `seeding`."""
    stage3: str = "stage3.jsonl"
    """Prompts of stage 3 with their references."""
    evaluation: dict[str, str] = Field(default_factory=dict)
    """Evaluation files by name."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Columns of these files that bear other names, {ours: theirs}; a dot leads into an object: {label: meta.gold}.
    Naming messages, conversations, prompt or instruction says, too, which of them holds the question."""
    errors_shown: PositiveInt = 20
    """Bad rows named before the rest is only counted."""
    image_megapixels_at_most: PositiveFloat = 64.0
    """Pictures larger than this are refused before they are decoded, million pixels."""
    emoji: EmojiData | None = None
    """Build the emoji set into `root` when it is not there."""
    words: WordsData | None = None
    """Build the words set into `root` when it is not there."""

    @model_validator(mode="after")
    def _one_question(self) -> Data:
        turns = [str(name) for name in QUESTIONS if name in self.columns]
        if len(turns) > 1:
            raise ValueError(f"data.columns names {' and '.join(turns)}, and each holds the question: keep one of them")
        return self

    @model_validator(mode="after")
    def _at_most_one_set(self) -> Data:
        if self.emoji is not None and self.words is not None:
            raise ValueError("give data.emoji or data.words, not both: a root holds one set")
        return self
