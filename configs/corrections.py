"""What each correction of stage 3's policy gradient takes, as settings of the section `rl`.

The formulas are in `learner.losses`. With r the importance ratio of the learner's policy to the engine's:

    none            1: every token as if it were the learner's own
    truncated       min(r, importance_cap)                                                (IMPALA, arXiv 1802.01561)
    icepop          r, and 0 outside [ratio_low, ratio_high]                              (arXiv 2510.18855)
    cispo           r, clipped to [ratio_low, ratio_high]                                 (arXiv 2506.13585)
    gspo            that of the whole response, in PPO's clip                             (arXiv 2507.18071)
    decoupled_ppo   PPO's clip around a proximal policy, times min(r of that, importance_cap)  (arXiv 2505.24298)

The numbers are those of the papers where they give them. CISPO's leaves the lower bound out, which is `truncated`:
what `cispo` adds here is that bound.
"""

from __future__ import annotations

from collections.abc import Mapping

from configs.choices import Correction, Proximal

TAKEN: Mapping[Correction, Mapping[str, object]] = {
    Correction.NONE: {},
    Correction.TRUNCATED: {"importance_cap": 2.0},
    Correction.ICEPOP: {"ratio_low": 0.5, "ratio_high": 5.0},
    Correction.CISPO: {"ratio_low": 0.5, "ratio_high": 2.0},
    Correction.GSPO: {"ratio_low": 0.9997, "ratio_high": 1.0004},
    Correction.DECOUPLED_PPO: {
        "importance_cap": 2.0,
        "ratio_low": 0.8,
        "ratio_high": 1.2,
        "proximal": Proximal.RECOMPUTED,
    },
}
SETTINGS = frozenset(name for taken in TAKEN.values() for name in taken)


def with_its_numbers(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of the section `rl`, with what its correction takes and they do not say."""
    named = settings.get("correction", Correction.TRUNCATED)
    if named not in list(Correction):  # what is no correction is the schema's to refuse
        return dict(settings)
    given = {name: value for name, value in settings.items() if name not in SETTINGS or value is not None}
    return {**TAKEN[Correction(str(named))], **given}


def unused(correction: Correction, settings: Mapping[str, object]) -> list[str]:
    """Which of a correction's settings are set and never read with this one."""
    return [name for name in sorted(SETTINGS - TAKEN[correction].keys()) if settings[name] is not None]
