"""The picture of a trade-off: an SVG that parses, with points where the numbers are."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.svg import Axis
from cluster.trade_off_picture import Place, picture
from rewards.bootstrap import Interval

AT = ((0.10, 0.5), (0.20, 0.7), (0.25, 0.6))  # Brier score and accuracy
PLACES = [
    Place(
        f"trial <{number}> & so on",
        Interval(brier, brier - 0.02, brier + 0.04),
        Interval(right, right - 0.1, right + 0.1),
        front,
    )
    for number, ((brier, right), front) in enumerate(zip(AT, (True, True, False), strict=True))
]


def drawn(places: list[Place]) -> Element:
    return ElementTree.fromstring(picture("seen", places))


def number(element: Element, name: str) -> float:
    return float(element.attrib[name])


def scale(svg: Element, *, up: bool) -> tuple[float, float]:
    """Pixels of 0, and of 1 from there, read off two ticks as the eye does."""
    found = [
        (float(text.text or ""), number(text, "y") - 4 if up else number(text, "x"))
        for text in svg.findall("./{*}text")
        if text.attrib["text-anchor"] == ("end" if up else "middle") and (text.text or "").replace(".", "").isdigit()
    ]
    (low, at_low), (high, at_high) = found[0], found[-1]
    pixels = (at_high - at_low) / (high - low)
    return at_low - low * pixels, pixels


def test_points_and_intervals_lie_where_the_axes_say() -> None:
    svg = drawn(PLACES)
    left, across = scale(svg, up=False)
    bottom, up = scale(svg, up=True)

    assert across > 0 > up  # to the right, and upwards
    groups = svg.findall("./{*}g")
    assert len(groups) == 3
    for place, group in zip(PLACES, groups, strict=True):
        (point,) = group.findall("./{*}circle")
        assert number(point, "cx") == pytest.approx(left + across * place.brier.value, abs=0.2)
        assert number(point, "cy") == pytest.approx(bottom + up * place.accuracy.value, abs=0.2)
        level, upright = group.findall("./{*}line")
        ends = [number(level, "x1"), number(level, "x2"), number(upright, "y1"), number(upright, "y2")]
        brier, accuracy = place.brier, place.accuracy
        assert ends[:2] == pytest.approx([left + across * end for end in (brier.low, brier.high)], abs=0.2)
        assert ends[2:] == pytest.approx([bottom + up * end for end in (accuracy.low, accuracy.high)], abs=0.2)
        assert number(level, "y1") == number(level, "y2") == number(point, "cy")


def test_the_front_is_joined_from_left_to_right_and_filled() -> None:
    svg = drawn(PLACES[::-1])

    (line,) = svg.findall("./{*}polyline")
    joined = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    points = [(number(point, "cx"), number(point, "cy")) for point in svg.findall(".//{*}circle")]
    assert joined == points[:0:-1]
    assert [point.attrib["fill"] == "white" for point in svg.findall(".//{*}circle")] == [True, False, False]


def test_every_trial_is_named_in_the_key_by_the_number_at_its_point() -> None:
    svg = drawn(PLACES)

    numbers = [group.findall("./{*}text")[0].text for group in svg.findall("./{*}g")]
    key = [text.text for text in svg.findall("./{*}text") if "trial" in (text.text or "")]
    assert numbers == ["1", "2", "3"]
    assert key == [f"{one}  trial <{one - 1}> & so on" for one in (1, 2, 3)]


def test_all_that_is_drawn_has_room_in_the_picture() -> None:
    svg = drawn([*PLACES, *(Place("x" * 60, PLACES[0].brier, PLACES[0].accuracy, False) for _ in range(40))])

    width, height = number(svg, "width"), number(svg, "height")
    for element in svg.iter():
        for name, value in element.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(value) <= width
            if name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(value) <= height
    longest = max(svg.findall("./{*}text"), key=lambda text: len(text.text or ""))
    assert number(longest, "x") + 6 * len(longest.text or "") < width


def test_without_a_trial_there_is_a_picture_with_axes_alone() -> None:
    svg = drawn([])

    assert svg.findall(".//{*}circle") == []
    assert len(svg.findall("./{*}line")) > 4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_an_axis_has_a_few_round_ticks_within_it(values: list[float]) -> None:
    axis = Axis.around([Interval(value, value, value) for value in values], 70, 590)

    ticks = axis.ticks
    assert 2 <= len(ticks) <= 7
    assert all(70 - 1e-6 <= axis.at(tick) <= 590 + 1e-6 for tick in ticks)
    steps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))
    assert f"{steps[0]:e}"[0] in "1259"  # 1, 2 or 5 times a power of ten; 9.99… is 1
    assert axis.at(min(values)) >= 70
    assert axis.at(max(values)) <= 590
