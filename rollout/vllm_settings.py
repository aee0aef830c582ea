"""A recipe's engine section as vLLM's arguments and environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vllm import AsyncEngineArgs
from vllm.platforms import current_platform

from configs.schema import Engine, Lora, Precision
from rollout.chat import ChatFormat
from rollout.vllm_adapters import adapter_arguments

_DTYPES = {Precision.FP32: "float32", Precision.BF16: "bfloat16"}
_RECEIVER = "rollout.weight_receiver.WeightReceiver"
_IMAGES_PER_PROMPT = 16  # more are refused; costs nothing until they come
_PICTURE_CACHE_GIB = 1.0  # processed pictures, for the samples of a group; vLLM's own 4 are held twice
_CPU_BLOCK_TOKENS = 32  # unit of the prefix cache; vLLM's own 128 would share no short prompt


def engine_arguments(
    model_dir: str, settings: Engine, chat: ChatFormat, seed: int, adapters: Lora | None
) -> AsyncEngineArgs:
    """Arguments of an engine for the model in `model_dir`, on the kind of machine this is."""
    arguments = AsyncEngineArgs(
        model=model_dir,
        dtype=_DTYPES[settings.precision],
        seed=seed,
        tensor_parallel_size=settings.tensor_parallel,
        max_model_len=settings.tokens_per_sequence,
        max_num_seqs=settings.sequences_at_once,
        max_num_batched_tokens=settings.tokens_per_batch,
        enforce_eager=settings.enforce_eager,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",  # after temperature and barred tokens: the behaviour policy's
        worker_extension_cls=_RECEIVER,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **adapter_arguments(adapters),
    )
    if settings.fp32_head:
        arguments.hf_overrides = {"head_dtype": "float32"}
    if chat.takes_images:
        arguments.limit_mm_per_prompt = {"image": _IMAGES_PER_PROMPT, "video": 0}
        arguments.mm_processor_kwargs = dict(chat.processor_options)
        arguments.mm_processor_cache_gb = _PICTURE_CACHE_GIB
    if current_platform.is_cpu():
        arguments.kv_cache_memory_bytes = int(settings.kv_cache_gib * 2**30)
        arguments.block_size = _CPU_BLOCK_TOKENS
        arguments.skip_mm_profiling = True  # encodes the largest picture there may be; memory is set above
    else:
        arguments.gpu_memory_utilization = settings.memory_share
    if _in_one_process(settings):
        arguments.distributed_executor_backend = "uni"
    elif settings.tensor_parallel > 1:
        # A process for each part, of this machine, which the actor's GPUs are all of. Within a placement group vLLM
        # would otherwise start Ray actors, for which the job has reserved nothing.
        arguments.distributed_executor_backend = "mp"
    return arguments


@contextmanager
def engine_environment(settings: Engine) -> Iterator[None]:
    """Environment variables for the processes vLLM starts; this process gets its own back afterwards."""
    variables = {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forking a process that has threads can hang
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONWARNINGS": "ignore",  # its processes repeat what this one has said
    }
    if current_platform.is_cpu():
        cores = len(os.sched_getaffinity(0)) // settings.tensor_parallel
        variables |= _cpu_threads(settings.threads_per_worker or max(1, cores))
    if _in_one_process(settings):
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # on CPUs the uniproc executor is refused without it
    with _environment(variables):
        yield


def _cpu_threads(threads: int) -> dict[str, str]:
    # vLLM would bind threads to cores, and every engine of a machine to the same ones. Unbound, and asleep while they
    # wait for each other, they share the cores that the process is left or was given (`engine.cores`) with other
    # engines and a learner.
    return {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _in_one_process(settings: Engine) -> bool:
    """Whether scheduler and model share a process: a third less CPU time, and a faster start.

    vLLM needs two where it binds the threads itself.
    """
    return settings.tensor_parallel == 1 and current_platform.is_cpu()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
