"""The command that hands a model on: `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cluster.cli_parts import command


def add_export_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    export = command(
        commands,
        "export",
        _export,
        "a stage's model as a Hugging Face directory with a card, proven by reloading it",
    )
    export.add_argument("run", type=Path, help="a run's folder, or the folder of a stage's model")
    export.add_argument("destination", type=Path, help="folder to write, which must not exist")
    export.add_argument("--stage", type=int, choices=[1, 2, 3], help="which (default: the last that is finished)")
    export.add_argument(
        "--form",
        choices=["merged", "adapter"],
        default="merged",
        help="of a run with learner.lora: the whole model, or what was added to its base (default: %(default)s)",
    )


def _export(options: argparse.Namespace) -> int:
    from cluster.export import Form, export
    from cluster.export_source import Source
    from cluster.quiet import quiet

    quiet()
    source = Source.of(options.run.absolute(), options.stage)
    for checked in export(source, options.destination.absolute(), Form(options.form)):
        print(checked)
    print(f"stage {source.number}: {options.destination}")
    return 0
