"""What README.md and docs/ ask of make, Ray, pip and the measurements is parsed by these themselves."""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from ray.scripts.scripts import cli as ray_command

from cluster.cli import parsed
from cluster.cli_parts import usable_recipe
from tests.unit.documented import ROOT, SHOWN, Command


@pytest.mark.parametrize("targets", sorted({one.words[1:] for one in SHOWN if one.words[0] == "make"}), ids=" ".join)
def test_make_knows_its_targets_and_what_they_run_of_ours_is_parsed(targets: tuple[str, ...]) -> None:
    words = ["make", "-n", f"PYTHON={sys.executable}", *targets]  # Make else asks each Python of the machine
    dry = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=540)

    assert dry.returncode == 0, dry.stderr
    for line in dry.stdout.splitlines():
        if line.startswith(".venv/bin/caliber "):
            usable_recipe(parsed(line.split()[1:]))


@pytest.mark.parametrize("command", [one for one in SHOWN if one.words[0] == "ray"], ids=str)
def test_ray_knows_its_commands_and_their_options(command: Command) -> None:
    found, name, words = ray_command, "ray", list(command.words[1:])
    while hasattr(found, "commands") and words:
        name, found, words = found.resolve_command(found.make_context(name, [], resilient_parsing=True), words)
    assert found is not None

    if words:
        found.make_context(name, words)  # click's error for an option that it has not


@pytest.mark.parametrize("command", [one for one in SHOWN if one.words[0] == "pip"], ids=str)
def test_an_extra_that_is_installed_is_one_of_the_project(command: Command) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    (extras,) = re.findall(r"\.\[([\w,]+)\]", command.words[-1])

    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


class Parsed(Exception):
    """Argparse has taken the words."""


@pytest.mark.parametrize(
    "command",
    [one for one in SHOWN if one.words[:2] == ("python", "-m") and one.words[2].startswith("benchmarks.")],
    ids=str,
)
def test_a_measurement_takes_the_options_that_it_is_shown_with(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command.filled
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(self: argparse.ArgumentParser, *given: object, **named: object) -> None:
        parse(self, *given, **named)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)
    monkeypatch.setattr(sys, "argv", words[1:])

    with pytest.raises(Parsed):
        runpy.run_module(words[1], run_name="__main__")
