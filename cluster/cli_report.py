"""The commands that show what a run said: `report` and `view`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cluster.cli_parts import command
from cluster.report.filters import Filter

_PORT = 8266  # beside Ray's dashboard
_ROLLOUTS_AT_MOST = 20_000


def add_report_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare them."""
    report = command(commands, "report", _report, "write a run, or several to compare, as one HTML page")
    report.add_argument("runs", type=Path, nargs="+", metavar="run", help="a run's folder (a recipe's `output`)")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="file to write (default: %(default)s)")
    report.add_argument(
        "--rollouts",
        type=_positive,
        default=_ROLLOUTS_AT_MOST,
        metavar="N",
        help="of each run at most so many, whole groups in equal distances (default: %(default)s)",
    )
    report.add_argument(
        "--live", action="store_true", help="serve it on this machine in place of --out, and follow running jobs"
    )
    report.add_argument("--port", type=int, default=_PORT, help="of --live; 0: any that is free (default: %(default)s)")

    view = command(commands, "view", _view, "show a run's responses in the terminal; plain lines where that is none")
    view.add_argument("run", type=Path, help="a run's folder (a recipe's `output`)")
    view.add_argument(
        "--filter",
        action="append",
        choices=list(Filter),
        type=Filter,
        default=[],
        dest="filters",
        metavar="NAME",
        help="; ".join(f"{one}: {one.meaning}" for one in Filter) + "; may be given again",
    )
    view.add_argument("--from", dest="source", metavar="SOURCE", help="rollouts, or an evaluation: 'stage 3, seen'")
    view.add_argument("--search", metavar="TEXT", help="in the response, its answer, the question and the prompt's id")
    view.add_argument("--limit", type=_positive, help="responses at most (default: 20 in a terminal, else all)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number of 1 or more")
    return int(text)


def _report(options: argparse.Namespace) -> int:
    from cluster.report.page import page
    from cluster.report.run_data import read_run

    if options.live:
        return _serve(options)
    text = page([read_run(run) for run in options.runs], options.rollouts)
    options.out.write_text(text, encoding="utf-8")
    print(f"{options.out.absolute()}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from cluster.report.live import LivePage, LiveServer

    report = LivePage([run.absolute() for run in options.runs], options.rollouts)
    with LiveServer(report, options.port) as server:
        report.text()  # what is wrong with the run is said here
        print(f"{server.address} follows {', '.join(map(str, options.runs))}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _view(options: argparse.Namespace) -> int:
    from rich.console import Console

    from cluster.report.run_data import read_run
    from cluster.report.view import chosen, show

    run, console = read_run(options.run), Console(highlight=False)
    sources = list(dict.fromkeys(row.source for row in run.rows))
    if options.source is not None and options.source not in sources:
        raise ValueError(f"got --from {options.source!r}, expected one of: {'; '.join(sources) or 'nothing yet'}")
    limit = options.limit or (20 if console.is_terminal else len(run.rows))
    try:
        rows = chosen(run.rows, run.prompts, options.filters, options.source, options.search)
        show(rows, run.prompts, limit, console)
        sys.stdout.flush()
    except BrokenPipeError:  # such as `| head` when it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
    return 0
