"""The policy on DeepSpeed: forward passes, optimizer steps, weights out, checkpoints.

Only this file, `learner.shards` and `learner.checkpoint_reading` import deepspeed. One `Policy` lives in each learner
rank; all ranks call the same methods in the same order, or the collectives inside them wait until they time out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.utils import groups
from transformers import AutoConfig, PreTrainedModel
from transformers.integrations import HfDeepSpeedConfig

from configs.schema import Learner, Optimizer, Precision
from learner.adapter_files import ADAPTER_FOLDER, write_adapter
from learner.architecture import model_class
from learner.batching import Layout, MicroBatch
from learner.checkpoint_reading import weights_only
from learner.dropout import end_dropout, without_dropout
from learner.fp32_head import Fp32Head
from learner.lora import Mergeable, adapter_parameters, add_adapters, mergeable_parameters, without_adapters
from learner.shards import ShardFiles, refuse_other_ranks

# (log-probabilities [N + E], micro-batch) -> the weighted sum of its losses.
BatchLoss = Callable[[torch.Tensor, MicroBatch], torch.Tensor]

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}
_SHARDS = "learner"  # DeepSpeed's folder in a checkpoint
_BARRED_LOGIT = -1e9  # finite: the gradient of a masked logit stays 0 instead of NaN


@dataclass(frozen=True, slots=True)
class Rank:
    """A learner process among its peers."""

    index: int
    world: int
    address: str  # host:port of rank 0's rendezvous
    seconds_per_collective: float  # limit of every one, and of the ranks' meeting


def join(rank: Rank) -> None:
    """Enter the process group: NCCL where there are GPUs, gloo elsewhere."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # On CPUs DeepSpeed would compile a collective of its own for ranks of one node: that needs a
    # compiler, takes a minute without a word, and a process killed meanwhile leaves a lock behind
    # that every later one waits for. gloo serves one node and many.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ["LOCAL_RANK"] = "0"  # Ray shows each rank its own GPUs alone
    limit = timedelta(seconds=rank.seconds_per_collective)
    dist.init_process_group(
        backend, init_method=f"tcp://{rank.address}", rank=rank.index, world_size=rank.world, timeout=limit
    )
    # DeepSpeed reduces and gathers over a group of its own with torch's own limit: it takes this one for that.
    groups._WORLD_GROUP = dist.new_group(timeout=limit)
    deepspeed.init_distributed(dist_backend=backend, dist_init_required=False)


class ResponseLogprobs(torch.nn.Module):
    """A language model reduced to what training asks of it: log-probabilities of response tokens."""

    def __init__(self, model: PreTrainedModel, barred_token_ids: Sequence[int], temperature: float) -> None:
        super().__init__()
        self.model = model
        self._barred = list(barred_token_ids)
        self._temperature = temperature

    def forward(self, batch: MicroBatch, *, plain: bool = False) -> torch.Tensor:
        """Log-probabilities of `batch.targets` [N], then of its tree's edges [E], in fp32, at the sampling temperature.

        Barred tokens are left out of the normalisation, as the engine leaves them out of sampling. `plain` ones are at
        temperature 1, with no token barred.
        """
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if batch.pixel_values is not None:
            inputs["pixel_values"] = batch.pixel_values
            inputs["image_grid_thw"] = batch.image_grid_thw
            inputs["mm_token_type_ids"] = batch.image_mask
        if batch.layout is not None:
            body = getattr(self.model, self.model.base_model_prefix)
            inputs |= _laid_out(body, batch, batch.layout, self.model.dtype)
        rows, positions = batch.rows, batch.positions
        if (tree := batch.tree) is not None:
            # At once with the responses: under ZeRO-3 ranks with branches and ranks without gather the same parameters.
            rows, positions = torch.cat([rows, tree.node_rows]), torch.cat([positions, tree.node_positions])
        logits = self._logits(inputs, rows, positions).float() / (1.0 if plain else self._temperature)
        if self._barred and not plain:
            logits = logits.index_fill(1, torch.tensor(self._barred, device=logits.device), _BARRED_LOGIT)
        tokens = len(batch.targets)
        logprobs = -torch.nn.functional.cross_entropy(logits[:tokens], batch.targets, reduction="none")
        if tree is None:
            return logprobs
        return torch.cat([logprobs, logits[tokens:].log_softmax(dim=1)[tree.edge_nodes, tree.edge_tokens]])

    def _logits(self, inputs: dict[str, object], rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The model's own logits [N, vocabulary] at N places of its rows.

        By the model's forward pass to its end, since many scale or cap what the last layer gives (Granite, Cohere,
        Gemma): the last layer alone is shown only the places asked for.
        """
        head = self.model.get_output_embeddings()
        only = head.register_forward_pre_hook(lambda _, given: (given[0][rows, positions],))
        try:
            logits: torch.Tensor = self.model(**inputs).logits
        finally:
            only.remove()
        return logits


def _laid_out(body: PreTrainedModel, batch: MicroBatch, layout: Layout, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The attention mask and the positions of rows with branches or several responses, as transformers takes them.

    What stands behind a prompt counts its position from the prompt's end, wherever it lies in the row. Models that
    give pictures positions of their own (Qwen-VL: three numbers for each token) compute the prompt's themselves.
    """
    if batch.pixel_values is not None and hasattr(body, "get_rope_index"):
        positions, _ = body.get_rope_index(
            batch.input_ids,
            mm_token_type_ids=batch.image_mask,
            image_grid_thw=batch.image_grid_thw,
            attention_mask=batch.attention_mask,
        )
    else:
        positions = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device).expand_as(batch.input_ids)
    positions = positions.clone()
    positions[..., layout.rows, layout.places] = positions[..., layout.rows, layout.anchors] + layout.depths
    seen = torch.zeros((), dtype=dtype, device=layout.attention.device)
    mask = torch.where(layout.attention, seen, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": positions}


def _deepspeed_config(learner: Learner, optimizer: Optimizer) -> dict[str, object]:
    # Summed in bf16, what one of many micro-batches adds is lost. DeepSpeed refuses this under ZeRO 0, and under ZeRO 1
    # would keep the whole model's gradients in fp32 on every rank.
    in_fp32 = {"data_types": {"grad_accum_dtype": "fp32"}} if learner.zero_stage >= 2 else {}
    return {
        "train_micro_batch_size_per_gpu": 1,  # micro-batches are ours; DeepSpeed only divides by this
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.max_grad_norm,
        "zero_optimization": {"stage": learner.zero_stage},
        "bf16": {"enabled": learner.precision is Precision.BF16},
        **in_fp32,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _schedule(optimizer: Optimizer, steps: int) -> Callable[[int], float]:
    """Factor of the peak learning rate by step: linear warm-up, then cosine decay."""

    def factor(step: int) -> float:
        if step < optimizer.warmup_steps:
            return (step + 1) / optimizer.warmup_steps
        progress = min(1.0, (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps))
        return optimizer.final_fraction + (1 - optimizer.final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def load_model(folder: str, learner: Learner) -> PreTrainedModel:
    """The Hugging Face model in `folder`, with its vision tower where it has one, and without dropout."""
    config = without_dropout(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    model = model_class(config).from_pretrained(
        folder,
        config=config,
        dtype=_DTYPES[learner.precision],
        attn_implementation=learner.attention,
        trust_remote_code=False,
    )
    end_dropout(model)
    if learner.fp32_head:
        model.set_output_embeddings(Fp32Head(model.get_output_embeddings()))
    if learner.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


class ReferenceModel:
    """A frozen copy of the model that stage 3 starts from, whole on every rank."""

    def __init__(self, folder: str, learner: Learner, barred_token_ids: Sequence[int], temperature: float) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(folder, learner).to(self._device).eval()
        self._module = ResponseLogprobs(model, barred_token_ids, temperature)

    def logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probabilities [N] without gradient, on the model's device."""
        with torch.no_grad():
            logprobs: torch.Tensor = self._module(replace(batch, tree=None).to(self._device))
            return logprobs


class Policy:
    """One rank's share of the model and its optimizer."""

    def __init__(
        self,
        folder: str,
        learner: Learner,
        optimizer: Optimizer,
        *,
        steps: int,
        barred_token_ids: Sequence[int] = (),
        temperature: float = 1.0,
    ) -> None:
        config = _deepspeed_config(learner, optimizer)
        # Kept alive while the model loads: transformers then places parameters for ZeRO-3 as it reads them.
        placement = HfDeepSpeedConfig(config) if learner.zero_stage == 3 else None
        self._model = load_model(folder, learner)
        if learner.lora is not None:
            add_adapters(self._model, learner.lora)
        del placement
        self._model.train()
        module = ResponseLogprobs(self._model, barred_token_ids, temperature)
        adam = torch.optim.AdamW(
            [parameter for parameter in module.parameters() if parameter.requires_grad],
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            fused=True,  # on CPUs 8 times faster than torch's default, a loop of passes over the parameters
        )
        self._engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=adam,
            lr_scheduler=lambda wrapped: torch.optim.lr_scheduler.LambdaLR(wrapped, _schedule(optimizer, steps)),
            config=config,
        )
        if isinstance(self._engine.optimizer, FP16_UnfusedOptimizer):  # so it is called in bf16 without ZeRO, too
            # It has taken a step without gradients to make room for Adam's moments: that counted, and decayed weights.
            self._engine.optimizer.state.clear()
            self._engine.optimizer.refresh_fp32_params()
        self._engine.checkpoint_engine = self._files = ShardFiles()
        # Scripts that it puts beside a checkpoint: the one thing it writes without that engine, and on rank 0 alone.
        self._engine._copy_recovery_script = lambda folder: None
        self._zero_stage, self._lora, self._folder = learner.zero_stage, learner.lora, folder

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return torch.device(self._engine.device)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._engine.get_lr()[0])

    def logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probabilities [N] without gradient."""
        with torch.no_grad():
            return self._engine(batch.to(self.device)).cpu()

    def plain_logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """The same at temperature 1 with no token barred: what an engine says of the tokens of a prompt."""
        with torch.no_grad():
            return self._engine(batch.to(self.device), plain=True).cpu()

    def logprobs_without_adapters(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probabilities [N] of the model that the adapters were put on, without gradient, on the model's device."""
        with torch.no_grad(), without_adapters(self._model):
            logprobs: torch.Tensor = self._engine(replace(batch, tree=None).to(self.device))
            return logprobs

    def response_logprobs(self, batches: Sequence[MicroBatch]) -> list[torch.Tensor]:
        """Log-probabilities [N] of each micro-batch's responses without gradient, on the CPU.

        Ranks may hold different numbers of micro-batches, one at least; all run as many forward passes.
        """
        rounds = self.most_over_ranks(len(batches))
        found = [self.logprobs(batch)[: len(batch.targets)] for batch in batches]
        for _ in range(rounds - len(batches)):
            self.logprobs(batches[0])
        return found

    def step(self, batches: Sequence[MicroBatch], loss: BatchLoss) -> float:
        """One optimizer step on the weighted mean of the losses over all ranks; returns that mean.

        The mean is over the global batch: losses are summed over micro-batches and ranks and divided
        once by the sum of the divisors, which for a token mean are the tokens' weights. Ranks may hold different
        numbers of micro-batches, one at least.
        """
        divisors = self._reduced([sum(batch.divisor for batch in batches)], dist.ReduceOp.SUM)
        divisor = max(float(divisors[0]), 1e-12)  # 0 where nothing is to be trained on: the gradient is 0 too
        rounds = self.most_over_ranks(len(batches))
        padded = [*batches, *([batches[0].as_dummy()] * (rounds - len(batches)))]
        total = 0.0
        for number, batch in enumerate(padded):
            self._engine.set_gradient_accumulation_boundary(number == rounds - 1)
            moved = batch.to(self.device)
            summed = loss(self._engine(moved), moved)
            total += float(summed.detach())
            # DeepSpeed averages gradients over ranks; times the world it is a sum.
            self._engine.backward(summed * (dist.get_world_size() / divisor))
        self._engine.step()
        return float(self._reduced([total], dist.ReduceOp.SUM)[0] / divisor)

    def grad_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping; None under ZeRO 0, where DeepSpeed keeps none."""
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def mean_over_ranks(self, sums: Mapping[str, float], count: float) -> dict[str, float]:
        """Sums over all ranks divided by the sum of `count`."""
        *totals, divisor = self._reduced([*sums.values(), count], dist.ReduceOp.SUM)
        return {name: float(total / max(divisor, 1e-12)) for name, total in zip(sums, totals, strict=True)}

    def most_over_ranks(self, count: int) -> int:
        """The largest of the ranks' counts."""
        return int(self._reduced([float(count)], dist.ReduceOp.MAX)[0])

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=operation)
        return tensor.cpu()

    def weight_buckets(self, bytes_per_bucket: int) -> Iterator[dict[str, torch.Tensor]]:
        """The whole weights on the CPU, adapters merged, bucket by bucket, on rank 0; empty buckets on the others.

        Under ZeRO-3 every rank takes part in gathering each bucket, so every rank must exhaust the
        iterator. Tied weights come once, under their first name.
        """
        return self._buckets(mergeable_parameters(self._model), bytes_per_bucket)

    def adapter_buckets(self, bytes_per_bucket: int) -> Iterator[dict[str, torch.Tensor]]:
        """The same of the adapters alone, named as in peft's files."""
        return self._buckets(adapter_parameters(self._model), bytes_per_bucket)

    def _buckets(self, parameters: Iterable[Mergeable], bytes_per_bucket: int) -> Iterator[dict[str, torch.Tensor]]:
        bucket: list[Mergeable] = []
        size = 0
        for found in parameters:
            bucket.append(found)
            size += sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in found.parts)
            if size >= bytes_per_bucket:
                yield self._gathered(bucket)
                bucket, size = [], 0
        if bucket:
            yield self._gathered(bucket)

    def _gathered(self, bucket: list[Mergeable]) -> dict[str, torch.Tensor]:
        parameters = [part for found in bucket for part in found.parts]
        with deepspeed.zero.GatheredParameters(parameters, enabled=self._zero_stage == 3):
            if dist.get_rank() != 0:
                return {}
            return {found.name: found.merged() for found in bucket}

    def save_model(self, folder: Path, bytes_per_bucket: int = 2**30) -> None:
        """Write a Hugging Face model (weights, configuration, generation settings); all ranks take part.

        Adapters are merged into it, and written apart into a folder of it too.
        """
        state: dict[str, torch.Tensor] = {}
        for bucket in self.weight_buckets(bytes_per_bucket):
            state.update(bucket)
        adapters: dict[str, torch.Tensor] = {}
        for bucket in self.adapter_buckets(bytes_per_bucket):  # none without
            adapters.update(bucket)
        if dist.get_rank() == 0:
            self._model.save_pretrained(folder, state_dict=state)
            if self._lora is not None:
                write_adapter(folder / ADAPTER_FOLDER, adapters, self._lora.rank, self._lora.alpha_taken, self._folder)

    def save_checkpoint(self, folder: Path) -> ShardFiles:
        """Have the sharded weights, optimizer and schedule written as they are now; all ranks take part.

        Returns this rank's files, which a thread writes.
        """
        self._engine.save_checkpoint(str(folder), tag=_SHARDS, save_latest=False)
        return self._files

    def load_checkpoint(self, folder: Path) -> None:
        """Take up what `save_checkpoint` wrote. Raises ValueError where it cannot be read, or not by so many ranks."""
        refuse_other_ranks(folder / _SHARDS, self._zero_stage, dist.get_world_size())
        with weights_only():
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=_SHARDS)
        if loaded is None:
            raise ValueError(f"no DeepSpeed checkpoint {_SHARDS!r} in {folder}: remove the folder to start afresh")
