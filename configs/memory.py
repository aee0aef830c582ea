"""How much memory a recipe's model states need, from the number of its parameters.

Model states as in ZeRO (arXiv 1910.02054, section 3.1): weights, gradients, and for mixed precision
an fp32 master copy with Adam's two moments, 12 bytes a parameter. Gradients that ZeRO splits over ranks
are summed in fp32. Activations, buffers and fragmentation come on top; they depend on the data and are
not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import Engine, Learner, Precision, Recipe, ScratchModel

GIB = 1024**3
_BYTES = {Precision.FP32: 4, Precision.BF16: 2}
_PATCH = 3 * 2 * 14 * 14  # Qwen2.5-VL: colours x frames x height x width of a vision patch
_MERGED = 2 * 2  # Qwen2.5-VL: patches merged into one image token


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters of a model, adapters apart, and of those the number that is trained; of adapters, theirs."""

    parameters: int
    trained: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. A rank's are in the memory of its device, an engine's are for each GPU it is split over."""

    rank_weights: int
    rank_gradients: int
    rank_optimizer: int  # fp32 master weights and Adam's moments
    rank_reference: int  # the frozen model of the KL term; 0 without one
    engine_weights: int  # adapters that travel alone included
    engine_kv_cache: int | None  # None on GPUs: what engine.memory_share leaves beside the weights
    update: int  # that leave the learner at an update, at most
    transfer_copy: int  # of the weights in host memory, which a transfer by deltas keeps; 0 without them

    @property
    def rank(self) -> int:
        """Bytes of one learner rank, activations not counted."""
        return self.rank_weights + self.rank_gradients + self.rank_optimizer + self.rank_reference


def estimate_memory(recipe: Recipe, size: ModelSize) -> Memory:
    """Memory of stage 3, the stage that needs most."""
    learner, engine = recipe.learner, recipe.engine
    weight = _BYTES[learner.precision]
    on_cpu = engine.gpus_per_worker == 0
    beside = size.trained if learner.lora is not None else 0
    beside_engine = beside if recipe.adapters_alone is not None else 0
    with_reference = recipe.rl.kl_weight > 0 and learner.lora is None  # else the model without its adapters serves
    return Memory(
        rank_weights=_share(size.parameters + beside, learner, from_stage=3) * weight,
        rank_gradients=_share(size.trained, learner, from_stage=2) * (4 if learner.zero_stage >= 2 else weight),
        rank_optimizer=_share(size.trained, learner, from_stage=1) * _optimizer_bytes(learner),
        rank_reference=size.parameters * weight if with_reference else 0,
        engine_weights=(_divided(size.parameters, engine.tensor_parallel) + beside_engine) * _BYTES[engine.precision],
        engine_kv_cache=round(engine.kv_cache_gib * GIB) if on_cpu else None,
        update=(size.parameters if recipe.adapters_alone is None else size.trained) * weight,
        transfer_copy=size.parameters * weight if recipe.transfer.deltas else 0,
    )


def parameter_count(scratch: ScratchModel) -> int:
    """Parameters of the Qwen2.5-VL that `learner.scratch` builds; input and output embeddings are tied.

    Exact where the tokenizer fills its vocabulary.
    """
    return _text_parameters(scratch) + _vision_parameters(scratch)


def kv_bytes_per_token(scratch: ScratchModel, engine: Engine) -> int:
    """Bytes of the keys and values of one token over all layers."""
    return 2 * scratch.layers * _key_value_width(scratch) * _BYTES[engine.precision]


def _optimizer_bytes(learner: Learner) -> int:
    # Without ZeRO, fp32 weights are their own master copy; ZeRO keeps its partition apart from them.
    keeps_master = learner.precision is not Precision.FP32 or learner.zero_stage >= 1
    return 4 + 4 + (4 if keeps_master else 0)


def _share(parameters: int, learner: Learner, from_stage: int) -> int:
    """Parameters that a rank holds of what ZeRO partitions from this stage on."""
    return _divided(parameters, learner.ranks) if learner.zero_stage >= from_stage else parameters


def _divided(amount: int, parts: int) -> int:
    return -(-amount // parts)


def _key_value_width(scratch: ScratchModel) -> int:
    return scratch.key_value_heads * (scratch.width // scratch.heads)


def _text_parameters(scratch: ScratchModel) -> int:
    width = scratch.width
    query_and_output = _linear(width, width) + width * width
    key_and_value = 2 * _linear(width, _key_value_width(scratch))
    mlp = 3 * width * scratch.mlp_width
    norms = 2 * width
    layer = query_and_output + key_and_value + mlp + norms
    return scratch.vocabulary_size * width + scratch.layers * layer + width


def _vision_parameters(scratch: ScratchModel) -> int:
    width, mlp_width = scratch.vision_width, scratch.vision_mlp_width
    attention = _linear(width, 3 * width) + _linear(width, width)
    mlp = 2 * _linear(width, mlp_width) + _linear(mlp_width, width)
    norms = 2 * width
    merged = _MERGED * width
    merger = width + _linear(merged, merged) + _linear(merged, scratch.width)
    return _PATCH * width + scratch.vision_layers * (attention + mlp + norms) + merger


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with bias."""
    return inputs * outputs + outputs
