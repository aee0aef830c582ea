from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cluster.reliability_picture import picture
from rewards.reliability import ReliabilityBin

BINS = [
    ReliabilityBin(low=0.0, high=0.1, n=4, right=1, confidence=0.05, interval=None),
    ReliabilityBin(low=0.7, high=0.8, n=60, right=45, confidence=0.7, interval=(0.6, 0.85)),
]


def test_the_picture_has_a_point_for_each_bin_where_its_numbers_are() -> None:
    svg = ElementTree.fromstring(picture("seen & <unseen>", BINS))

    groups = svg.findall("./{*}g")
    assert len(groups) == len(BINS)
    for one, group in zip(BINS, groups, strict=True):
        (point,) = group.findall("./{*}circle")
        assert float(point.attrib["cx"]) == pytest.approx(70 + 400 * one.confidence, abs=0.1)
        assert float(point.attrib["cy"]) == pytest.approx(450 - 400 * one.accuracy, abs=0.1)
        assert f"{one.n} answers" in (group.findtext("./{*}title") or "")


def test_an_interval_is_drawn_where_there_is_one() -> None:
    svg = ElementTree.fromstring(picture("seen", BINS))

    few, many = (group.findall("./{*}line") for group in svg.findall("./{*}g"))
    (upright,) = many
    assert few == []
    assert float(upright.attrib["y1"]) == pytest.approx(450 - 400 * 0.6, abs=0.1)
    assert float(upright.attrib["y2"]) == pytest.approx(450 - 400 * 0.85, abs=0.1)
