"""Scorers as a user may write them, good ones and bad ones; made in child processes by the tests."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np


class Overlap:
    """The share of the reference's words that the answer has."""

    def __call__(self, answer: str, reference: str) -> float:
        wanted = set(reference.split())
        return len(wanted & set(answer.split())) / len(wanted)


class Moody:
    """Does what the answer says."""

    def __call__(self, answer: str, reference: str) -> object:
        match answer:
            case "hang":
                print("hanging", flush=True)
                time.sleep(60)
            case "hang in the interpreter":
                print("hanging", flush=True)
                re.match(r"(a+)+$", "a" * 40 + "b")  # does not let go of the interpreter's lock
            case "raise":
                raise KeyError(f"no such mood: {reference}")
            case "exit":
                sys.exit(3)
            case "die":
                os.abort()
            case "take 4 GiB":
                np.empty(2**29)
            case "leave a child":
                return subprocess.Popen(["sleep", "60"]).pid / 2**22  # beyond the highest number of a process
            case "say yes":
                return "yes"
            case "say nan":
                return float("nan")
            case "say 2":
                return 2.0
            case "say less than nothing":
                return -0.1
            case "say true":
                return True
            case "say numpy":
                return np.float32(0.25)
            case "say np.bool_":
                return np.bool_(True)
            case "say an array":
                return np.array(0.25)
            case "say two":
                return np.array([0.25, 0.5])
            case "say a text":
                return "0.25"
            case "say bytes":
                return b"0.25"
            case "fork":
                os.fork()
            case "fork and raise":
                os.fork()
                raise KeyError(reference)
            case "print":
                print("printed", flush=True)
            case "write into every file":
                for handle in map(int, os.listdir("/proc/self/fd")):
                    if handle > sys.stderr.fileno():
                        _write(handle)
        return 1.0


class Echo:
    """Which of its texts came whole: 1 where they are the same."""

    def __call__(self, answer: str, reference: str) -> float:
        return float(answer == reference)


class NotOnFear:
    """Has no verdict on fear."""

    def __call__(self, answer: str, reference: str) -> float:
        if answer == "fear":
            raise ValueError("of fear nothing is said")
        return float(answer == reference)


class Halves:
    """Knows two names of a half."""

    def __call__(self, answer: str, reference: str) -> bool:
        return {answer, reference} <= {"1/2", "50%"}


class Patient:
    """Takes its time."""

    def __call__(self, answer: str, reference: str) -> float:
        time.sleep(0.1)
        return 1.0


class ForksWhenMade:
    """Answers which process it is."""

    def __init__(self) -> None:
        os.fork()

    def __call__(self, answer: str, reference: str) -> float:
        return os.getpid() / 2**22  # beyond the highest number of a process


class Stammers:
    """Replies to a question twice, to the pipe that it was told of."""

    def __call__(self, answer: str, reference: str) -> float:
        if answer == "twice":
            message = json.dumps({"number": 1, "score": 1.0}).encode()
            os.write(int(sys.argv[2]), struct.pack("!i", len(message)) + message)
        return 0.0


class DiesWhenMade:
    def __init__(self) -> None:
        with open(os.environ["CALIBER_TEST_FILE"], "a", encoding="utf-8") as file:
            file.write("made\n")
        os.abort()


class RaisesWhenMade:
    def __init__(self) -> None:
        raise OSError("no model here")


class DiesWhenMadeAgain:
    """The first one lives until its first question, none after it does."""

    def __init__(self) -> None:
        flag = os.environ["CALIBER_TEST_FILE"]
        if os.path.exists(flag):
            os.abort()
        open(flag, "w", encoding="utf-8").close()

    def __call__(self, answer: str, reference: str) -> float:
        os.abort()


class NotCallable:
    pass


def _write(handle: int) -> None:
    with suppress(OSError):
        os.write(handle, b"\0\0\0\4gone")  # as the pipe frames a message
