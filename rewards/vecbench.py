"""VECBench's tasks, and the groups its results are reported by."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "ID VSA": ("FI-2", "WebEmo-2"),
    "ID VER": ("FI-8", "EmoSet-8", "WebEmo-7", "WebEmo-25"),
    "OOD VER": ("Abstract-8", "Artphoto-8", "UnbiasedEmo-6"),
}
# In the order of the released evaluator's table.
TASKS = (
    "Abstract-8",
    "Artphoto-8",
    "EmoSet-8",
    "FI-2",
    "FI-8",
    "UnbiasedEmo-6",
    "WebEmo-2",
    "WebEmo-7",
    "WebEmo-25",
)
