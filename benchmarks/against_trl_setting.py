"""What `benchmarks.against_trl` measures on: the words recipe's model and prompts, and TRL in its own environment."""

from __future__ import annotations

import json
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

from cluster.gguf_file import gguf_file
from cluster.run_folder import written_aside
from cluster.setup.install import install_cpu_torch
from cluster.setup.pip_command import InstallError, Pip
from configs.load import load_recipe
from configs.schema import Precision, Recipe
from learner.gguf_model import unpack_gguf
from rollout.built_set import write_rows
from rollout.chat import ChatFormat, ImageLimits
from rollout.readers import read_prompts
from rollout.words import words_set

WORDS = Path(__file__).parents[1] / "configs" / "words" / "words.yaml"
TRL = "1.16.0"
PROMPT_TOKENS = 81
# The words recipe's question, with the form that its SFT stages teach: nothing has taught it here.
QUESTION = (
    "Is the word negative, neutral or positive? Say the word again, what it is, and how sure you are of that, from "
    "0.1 to 0.9. Write it in this form: <think>bright</think><answer>positive</answer><confidence>0.8</confidence>"
)
END = "<empty_output>"  # a token of the vocabulary that SmolLM2 has no use for

_SAME = ("torch", "transformers", "accelerate")  # libraries that TRL gets in the versions that Caliber has


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the parts are."""

    model: Path  # bf16; both sides load it
    data: Path  # the words set, stage 3's prompts replaced
    prompts: list[Mapping[str, str]]  # the same as text, each with its label
    trl_python: Path


def prepared(kept: Path, scratch: Path) -> Setting:
    """Model and environment are made in `kept` where they are not there yet, the data in `scratch`."""
    recipe = load_recipe(WORDS)
    trl_python = trl_environment(kept / "trl")
    model, data = kept / "model", scratch / "data"
    if not model.exists():
        print("unpacking the model", flush=True)
        with written_aside(model) as aside:
            unpack_endless(recipe, aside)
    return Setting(model, data, write_prompts(recipe, model, data), trl_python)


def unpack_endless(recipe: Recipe, folder: Path) -> None:
    """The recipe's model, with an end token that it never says: every response has all the tokens it may have.

    So both sides generate and train on the same number of tokens, whatever either does about responses that end early.
    """
    assert recipe.model.gguf is not None
    unpack_gguf(gguf_file(recipe.model.gguf), folder, Precision.BF16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids(END)
    if tokenizer.convert_ids_to_tokens(end) != END:
        raise ValueError(f"the model's vocabulary has no {END}: name another token that it has no use for")
    tokenizer.eos_token = END
    tokenizer.save_pretrained(folder)
    for file in (folder / "config.json", folder / "generation_config.json"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**settings, "eos_token_id": end}, indent=1) + "\n", encoding="utf-8")


def write_prompts(recipe: Recipe, model: Path, data: Path) -> list[Mapping[str, str]]:
    """Build the words set, and in it leave stage 3 the words that the question makes a prompt of 81 tokens with."""
    assert recipe.data.words is not None
    words_set(recipe.data.words, recipe.response).build(data)
    file = data / recipe.data.stage3
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["messages"] = [{"role": "system", "content": QUESTION}, {"role": "user", "content": row["id"]}]
    write_rows(file, rows)
    chat = ChatFormat(str(model), ImageLimits())
    prompts = read_prompts(file, data, need_response=False, require_reference=True)
    rendered = [(prompt, chat.render(prompt)) for prompt in prompts]
    kept = {prompt.prompt_id: (prompt, made) for prompt, made in rendered if len(made.token_ids) == PROMPT_TOKENS}
    write_rows(file, [row for row in rows if row["id"] in kept])
    return [{"prompt": made.text, "label": prompt.label or ""} for prompt, made in kept.values()]


def trl_environment(folder: Path) -> Path:
    """The Python of an environment with TRL, and with the libraries under it in the versions that Caliber has.

    pip takes them from where it is set to. torch is its CPU build; torchvision is not needed, and not there.
    Raises InstallError.
    """
    python, stamp = folder / "bin" / "python", folder / "caliber-installed"
    versions = {name: version(name).partition("+")[0] for name in _SAME}
    wanted = json.dumps({"trl": TRL, **versions, "python": sys.version})
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing TRL {TRL} in {folder}, about 2 GB; all of pip's words in {folder / 'install.log'}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = Pip(folder / "install.log", str(python))
    options = install_cpu_torch(pip, versions["torch"])
    same = [f"{name}=={number}" for name, number in versions.items()]
    outcome = pip.run("install", f"trl=={TRL}", *same, *options)
    if not outcome.succeeded:
        raise InstallError(outcome.report("pip could not install TRL"))
    stamp.write_text(wanted, encoding="utf-8")
    return python
