"""What runs inside vLLM's worker processes: the receiving end of a weight update.

vLLM mixes `WeightReceiver` into its worker class (`worker_extension_cls`). Tensors arrive as a
safetensors file in memory, which every worker of the engine maps: nothing is pickled, and with
tensor parallelism a worker copies only what it keeps. Or they are broadcast to the workers' devices.

The interface used is that of vLLM 0.32; it changes every few versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from rollout.broadcast import Layout, Meeting, TensorKind, receive
from rollout.checksum import checksum_of, digests
from rollout.lifeline import end_with
from rollout.vllm_adapters import put_in_place, put_nothing_in_place


class WeightReceiver:
    """Methods that `AsyncLLM.collective_rpc` calls by name."""

    vllm_config: VllmConfig
    model_runner: GPUModelRunner
    rank: int
    device: torch.device | None

    def end_with(self, process_id: int) -> None:
        """End with that process: where it is killed, vLLM's processes would keep their memory for ever."""
        end_with(process_id)

    def receive_weights(self, path: str) -> None:
        """Load the tensors in `path`, named as in the model's checkpoint.

        The engine must be paused. On CPUs vLLM packs a layer's weights and frees the originals, so
        what it holds cannot be read back. Every parameter of the model must have been made of these
        tensors, whole: ValueError where one is missing or fits nowhere. The model is no longer usable
        then.
        """
        self._load([load_file(path)])

    def receive_broadcast(self, meeting: tuple[str, int, int, float], layout: Layout) -> str:
        """The same of tensors that come from the learner's rank 0 into this process's device, bucket by bucket.

        Returns the checksum of what came. Raises TransferFailed where they do not come.
        """
        kinds = [[TensorKind(*kind) for kind in bucket] for bucket in layout]  # plain lists have travelled
        assert self.device is not None, "it is set when the model is loaded"
        buckets, found = receive(Meeting(*meeting), self.rank, kinds, self.device), []

        def noted() -> Iterator[Mapping[str, torch.Tensor]]:
            for tensors in buckets:
                found.extend(digests(tensors))
                yield tensors

        self._load(noted())
        return checksum_of(found)

    def _load(self, buckets: Iterable[Mapping[str, torch.Tensor]]) -> None:
        model = self.model_runner.get_model()
        missing = {name for name, _ in model.named_parameters()}
        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            # `load_weights` alone would copy into the packed weights, which have another shape.
            initialize_layerwise_reload(model)
            for tensors in buckets:
                missing -= model.load_weights(iter(tensors.items()))
            _check_complete(model, missing)
            finalize_layerwise_reload(model, self.vllm_config.model_config)
            _pack_tied_heads(model)
        torch.accelerator.synchronize()

    def receive_adapters(self, path: str, version: int) -> None:
        """Replace the adapters by those in `path`, named as in peft's files.

        The engine must be paused. Raises ValueError for what fits no layer; the adapters are no longer usable then.
        """
        with torch.no_grad():
            put_in_place(self.model_runner.lora_manager, version, Path(path))
        torch.accelerator.synchronize()

    def begin_without_adapters(self, version: int, rank: int) -> None:
        """Compute with adapters of zeros until others come."""
        put_nothing_in_place(self.model_runner.lora_manager, version, rank)


def _check_complete(model: torch.nn.Module, missing: set[str]) -> None:
    """Raise ValueError for parameters that were not sent, and for fused ones that were sent in part.

    vLLM would keep the old values of the first and leave the rest of the second uninitialised.
    """
    partial = {name for name, layer in model.named_modules() if _is_partial(layer)}
    if missing or partial:
        raise ValueError(
            "the weights sent are not the whole model's: "
            f"{len(missing)} parameters are missing, among them {sorted(missing)[:5]}; "
            f"{len(partial)} layers are incomplete, among them {sorted(partial)[:5]}"
        )


def _is_partial(layer: torch.nn.Module) -> bool:
    progress = get_layerwise_info(layer)
    # A finished layer can no longer load. An embedding's rows of padding are never sent.
    if not progress.can_load() or isinstance(layer, VocabParallelEmbedding):
        return False
    return 0 < progress.load_numel < sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _pack_tied_heads(model: torch.nn.Module) -> None:
    """Let output layers that share the embedding's weights follow it.

    Loading skips them, as no weights of theirs are sent; on CPUs they would go on with the packed
    copy they made of the old embedding. Elsewhere there is no copy, and nothing happens here.
    """
    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)
