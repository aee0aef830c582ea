"""The command that uses a model: `predict`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cluster.cli_parts import command
from cluster.stopped import Stopped

if TYPE_CHECKING:
    from cluster.held_out import Fitted

_STDOUT, _STDERR = 1, 2


def add_predict_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    predict = command(commands, "predict", _predict, "an answer and a confidence for each row of a file, as JSONL")
    predict.add_argument(
        "model", type=Path, help="a run's folder (its stage 3), or a model's directory such as stage2/model"
    )
    predict.add_argument("data", type=Path, help="JSONL rows of questions, which need no references")
    predict.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe to change")
    predict.add_argument("--recipe", type=Path, help="the model's recipe (default: its run's)")
    predict.add_argument("--out", type=Path, metavar="FILE", help="write here, which must not exist (default: print)")
    predict.add_argument("--samples", type=int, default=1, metavar="K", help="responses to each row, which vote")
    predict.add_argument("--temperature", type=float, help="instead of the recipe's; 0 is greedy")
    predict.add_argument(
        "--calibrate", type=Path, metavar="HELD_OUT", help="JSONL rows with references, none of them in data"
    )
    predict.add_argument(
        "--risk", type=float, help="withhold answers, so that of the others at most this share is wrong"
    )
    predict.add_argument("--delta", type=float, help="probability that it is more after all (default: 0.1)")
    predict.add_argument(
        "--recalibrate", metavar="MAP", help="put confidences through a map fitted on HELD_OUT: isotonic or temperature"
    )


def _predict(options: argparse.Namespace) -> int:
    from cluster.predicting import Predicting, predict
    from rewards.abstention import Guarantee

    if options.delta is not None and options.risk is None:
        raise ValueError("--delta says how sure --risk is, and is of no use alone: leave it out")
    sure = {} if options.delta is None else {"delta": options.delta}

    settings = Predicting(
        samples=options.samples,
        temperature=options.temperature,
        held_out=options.calibrate,
        guarantee=None if options.risk is None else Guarantee(options.risk, **sure),
        recalibrate=options.recalibrate,
    )
    with _lines(options.out) as write:
        try:
            rows = predict(
                options.model,
                options.data,
                settings,
                recipe=options.recipe,
                overrides=options.overrides,
                each=lambda prediction: write(prediction.to_json()),
                fitted=_tell,
            )
        except Stopped:
            print("stopped: the rows that were done are written, the others are not", file=sys.stderr)
            return 1
    unanswered = sum(row.error is not None for row in rows)
    if unanswered:
        print(f"{unanswered} of {len(rows)} rows cannot be answered; their `error` says why", file=sys.stderr)
    return 1 if unanswered else 0


def _tell(fitted: Fitted) -> None:
    if (line := fitted.told()) is not None:
        print(line, file=sys.stderr)


@contextmanager
def _lines(out: Path | None) -> Iterator[Callable[[str], object]]:
    """Writes a line, whole and at once. Raises FileExistsError for a file that is there."""
    if out is None:
        with _printed_alone() as printed:
            yield lambda line: print(line, file=printed, flush=True)
        return
    from rollout.whole_appends import WholeAppends

    if out.exists():
        raise FileExistsError(f"{out} is there already, and nothing is written over: name another file")
    with closing(WholeAppends(out)) as file:
        try:
            yield lambda line: file.append(f"{line}\n".encode())
        finally:
            if not out.stat().st_size:  # nothing came of it: the same command may be given again
                out.unlink()


@contextmanager
def _printed_alone() -> Iterator[TextIO]:
    """The standard output for what is written here; what Ray's processes print goes to the standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8") as printed:
        os.dup2(_STDERR, _STDOUT)
        try:
            yield printed
        finally:
            sys.stdout.flush()
            os.dup2(printed.fileno(), _STDOUT)
