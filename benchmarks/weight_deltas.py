"""How much smaller than the weights their changes are, and what it costs to send those instead.

    python -m benchmarks.weight_deltas MODEL --json weight_deltas.json

bf16 weights of fp32 master weights under AdamW in plain torch, on random tokens (and pictures, where the model takes
some). After steps that warm the optimizer up, every step's weights are compared with those before it, as
`transfer.deltas` does. Printed are medians over the steps and their range; beside the bytes the arithmetic bound: for
each tensor the entropy of which values changed, and the values. A second is one of the process's own time on a core,
so that what else runs on the machine does not count. Without MODEL, the emoji recipe's own is built.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

from benchmarks.report import Figure, Report, figure
from configs.load import load_recipe
from configs.schema import Optimizer
from learner.architecture import model_class
from learner.scratch import build_scratch_model
from rewards.parse import OUTER_TAGS
from rollout.checksum import digests
from rollout.delta import apply, difference

DEMO = Path(__file__).parents[1] / "configs" / "emoji" / "demo.yaml"
LEARNING_RATES = (1e-6, 1e-5)
SEQUENCES, TOKENS = 8, 64  # of a step
PICTURE = 84  # pixels a side


@dataclass(frozen=True, slots=True)
class Update:
    """One step's new weights, compared with those before."""

    changed: float  # share of the values
    sent: float  # bytes of the delta, as a share of those of the weights
    bound: float  # the arithmetic bound of that
    seconds_to_encode: float
    seconds_to_apply: float
    seconds_of_checksum: float  # once; sender, receiver and engine each take it


class Training:
    """A model in bf16 and its master weights in fp32."""

    def __init__(self, folder: str, learning_rate: float) -> None:
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(folder)
        loaded = model_class(config).from_pretrained(folder, dtype="auto")
        exact = loaded.dtype is torch.bfloat16
        self._master = [_with_residue(p) if exact else p.detach().float() for p in loaded.parameters()]
        self.model: PreTrainedModel = loaded.to(torch.bfloat16)
        optimizer = Optimizer(learning_rate=learning_rate)  # for the recipes' own moments
        self._adam = torch.optim.AdamW(
            self._master, learning_rate, optimizer.betas, weight_decay=optimizer.weight_decay
        )
        self._round()

    def step(self) -> None:
        """One step on random data."""
        self.model.zero_grad()
        self.model(**_random_inputs(self.model)).loss.backward()
        for master, parameter in zip(self._master, self.model.parameters(), strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        self._adam.step()
        self._round()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy."""
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    def _round(self) -> None:
        with torch.no_grad():
            for master, parameter in zip(self._master, self.model.parameters(), strict=True):
                parameter.copy_(master)


def _with_residue(weights: torch.Tensor) -> torch.Tensor:
    """Master weights that round to these: a checkpoint in bf16 has lost what they were beyond that."""
    exact = weights.detach().float()
    spacing = torch.exp2(exact.abs().clamp(min=1e-30).log2().floor() - 7)  # bf16 has seven bits behind the first
    return exact + (torch.rand_like(exact) - 0.5) * spacing


def _random_inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    config = model.config
    text = config.get_text_config()
    ids = torch.randint(0, text.vocab_size, (SEQUENCES, TOKENS))
    if not hasattr(config, "image_token_id"):
        return {"input_ids": ids, "labels": ids}
    vision = config.vision_config
    for special in (config.image_token_id, config.video_token_id):  # each stands for a picture's part
        ids[ids == special] = (special + 1) % text.vocab_size
    side = PICTURE // vision.patch_size
    image_tokens = (side // vision.spatial_merge_size) ** 2
    ids[:, 1 : 1 + image_tokens] = config.image_token_id
    ids[:, 0], ids[:, 1 + image_tokens] = config.vision_start_token_id, config.vision_end_token_id
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "labels": ids,
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(SEQUENCES * side**2, patch),
        "image_grid_thw": torch.tensor([[1, side, side]] * SEQUENCES),
    }


def compared(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> Update:
    """One update: encoded, applied to a copy of the old weights, proven."""
    started = time.process_time()
    deltas = {name: difference(old[name], new[name]) for name in new}
    encoded = time.process_time()
    digests(new)
    proven = time.process_time()
    held = {name: tensor.clone() for name, tensor in old.items()}
    copied = time.process_time()
    for name, delta in deltas.items():
        if delta is not None:
            apply(delta, held[name])
    applied = time.process_time()
    assert digests(held) == digests(new), "a delta lost something"
    changed = {name: int((old[name].view(torch.int16) != new[name].view(torch.int16)).sum()) for name in new}
    nbytes = sum(tensor.nbytes for tensor in new.values())
    return Update(
        changed=sum(changed.values()) / sum(tensor.numel() for tensor in new.values()),
        sent=sum(delta.nbytes for delta in deltas.values() if delta is not None) / nbytes,
        bound=sum(bound(changed[name], tensor) for name, tensor in new.items()) / nbytes,
        seconds_to_encode=encoded - started,
        seconds_to_apply=applied - copied,
        seconds_of_checksum=proven - encoded,
    )


def bound(changed: int, tensor: torch.Tensor) -> float:
    """Bytes that say which values changed, were every choice of them as likely, and their new bits."""
    values = tensor.numel()
    choices = math.lgamma(values + 1) - math.lgamma(changed + 1) - math.lgamma(values - changed + 1)
    return choices / math.log(2) / 8 + changed * tensor.element_size()


def measured(folder: str, learning_rate: float, warm_up: int, repeats: int) -> list[Update]:
    """The updates of the steps after the warm-up."""
    training = Training(folder, learning_rate)
    for _ in range(warm_up):
        training.step()
    found, old = [], training.weights()
    for _ in range(repeats):
        training.step()
        new = training.weights()
        found.append(compared(old, new))
        old = new
    return found


def figures(updates: Sequence[Update]) -> list[Figure]:
    """Of all updates; what is sent, and its bound, as shares of the weights' bytes."""
    return [
        figure("values changed", "%", [100 * update.changed for update in updates], 2),
        figure("bytes sent", "%", [100 * update.sent for update in updates], 2),
        figure("  at least, by their entropy", "%", [100 * update.bound for update in updates], 2),
        figure("encoding", "ms", [1000 * update.seconds_to_encode for update in updates]),
        figure("applying", "ms", [1000 * update.seconds_to_apply for update in updates]),
        figure("checksum", "ms", [1000 * update.seconds_of_checksum for update in updates]),
    ]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", help="folder of a Hugging Face model (default: the emoji recipe's, untrained)"
    )
    parser.add_argument("--warm-up", type=int, default=20, help="steps before (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="updates that are compared (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report = Report(given)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as own:
        folder = given.model or _built(Path(own) / "model")
        model = model_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder)
        megabytes = 2 * sum(parameter.numel() for parameter in model.parameters()) / 1e6
        for rate in LEARNING_RATES:
            updates = measured(folder, rate, given.warm_up, given.repeats)
            report.add(f"{megabytes:.1f} MB of bf16 weights, learning rate {rate:.0e}, one core", figures(updates))
    report.finish()


def _built(folder: Path) -> str:
    recipe = load_recipe(DEMO)
    assert recipe.model.scratch is not None
    words = [f"{number} {number * 7919:x}" for number in range(4000)]  # any text that fills the vocabulary
    tags = [*OUTER_TAGS, *recipe.response.reasoning_elements]
    roles = ["system\n", "user\n", "assistant\n"]
    build_scratch_model(recipe.model.scratch, [*roles, *words], tags, folder, recipe.seed)
    return str(folder)


if __name__ == "__main__":
    main()
