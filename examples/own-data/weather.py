"""Writes rows about a made-up coast's weather into data/: three signs, and what ten forecasters made of them.

It stands for whatever makes rows of your own data: Caliber reads the files, and never this.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

SKY = ("clear", "hazy", "grey", "black")
WIND = ("calm", "breezy", "strong")
BAROMETER = ("rising", "steady", "falling")
WEATHER = ("dry", "drizzle", "rain")
FORECASTERS = 10


def shares(sky: str, wind: str, barometer: str) -> list[float]:
    """How often each weather follows such signs."""
    gloom = SKY.index(sky) + WIND.index(wind) / 2 + BAROMETER.index(barometer)  # 0 to 6
    nearness = [math.exp(-((gloom - 3 * position) ** 2) / 3) for position in range(len(WEATHER))]
    return [near / sum(nearness) for near in nearness]


def rows(name: str, visits: int, seed: int, *, responses: bool) -> Iterator[dict[str, object]]:
    """`visits` rows for each set of signs, each with the votes of forecasters of its own."""
    draw = random.Random(seed)
    for visit, signs in product(range(visits), product(SKY, WIND, BAROMETER)):
        votes = draw.choices(WEATHER, shares(*signs), k=FORECASTERS)
        sky, wind, barometer = signs
        question = f"Sky {sky}, wind {wind}, barometer {barometer}. Is it going to be dry, drizzle or rain?"
        turns = [{"role": "user", "content": question}]
        if responses:  # of one forecaster: the model is to learn how often each is right, and not who wins
            signed = f"<think><signs>{' '.join(signs)}</signs></think><answer>{votes[0]}</answer>"
            turns.append({"role": "assistant", "content": signed})
        yield {
            "id": f"{name}-{'-'.join(signs)}-{visit}",
            "task": "weather",
            "messages": turns,
            "candidates": WEATHER,
            "reference": {"counts": {weather: votes.count(weather) for weather in WEATHER}},
        }


def main() -> None:
    """Write a file for each stage, and one that no stage shows."""
    folder = Path("data")
    folder.mkdir(exist_ok=True)
    for seed, (name, visits) in enumerate({"stage1": 20, "stage2": 4, "stage3": 8, "test": 2}.items()):
        written = rows(name, visits, seed, responses=name == "stage1")
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")


if __name__ == "__main__":
    main()
