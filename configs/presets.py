"""The mixes of published methods, as settings of the section `rewards`.

With r the reward of a response, i = 1 if its answer is right and c its confidence:

    emocaliber   1 + i + 2 [i ln c + (1 - i) ln(1 - c)], and -5 where it is malformed    (its released code)
    rlcr         1/2 format + 1/2 i + 1/2 (1 - (i - c)^2), and 0 where it is malformed   (arXiv 2507.16806)
    dcpo         answer: i; confidence: -1/2 (1/2 i + 1/2 mean of i over the group - c)^2   (arXiv 2603.09117)
    rlvr         i

`dcpo` and `rlvr` have 1 added for a well-formed response, for both kinds of tokens: neither says what a malformed
one is worth. A preset is a reward and no more: how advantages are made of it stays the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping

from configs.choices import Credit, Preset, Reading, ScoringRule

PRESETS: Mapping[Preset, Mapping[str, object]] = {
    Preset.DEFAULT: {},
    Preset.EMOCALIBER: {
        "reading": Reading.EMOCALIBER,
        "scoring_rule": ScoringRule.UNCLIPPED_LOG,
        "weights": {"correctness": 1.0, "calibration": 2.0, "format": 1.0},
        "malformed": {"calibration": 0.0, "format": -5.0},
        "credit": Credit.JOINT,
    },
    Preset.RLCR: {
        "reading": Reading.RLCR,
        "weights": {"correctness": 0.5, "calibration": 0.5, "format": 1.0},  # of 1 - (i - c)^2 the 1 is format's
        "malformed": {"calibration": 0.0},
        "credit": Credit.JOINT,
    },
    Preset.DCPO: {
        "target": {"outcome": 0.5, "group": 0.5},
        "weights": {"correctness": 1.0, "calibration": 0.5, "format": 1.0},
    },
    Preset.RLVR: {
        "weights": {"correctness": 1.0, "calibration": 0.0, "format": 1.0},
        "credit": Credit.JOINT,
    },
}


def with_preset(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of the section `rewards` laid over those of the preset they name."""
    preset = settings.get("preset")
    if preset is None or preset not in list(Preset):  # what is no preset is the schema's to refuse
        return dict(settings)
    merged = dict(PRESETS[Preset(str(preset))])
    for name, value in settings.items():
        under = merged.get(name)
        merged[name] = {**under, **value} if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged
