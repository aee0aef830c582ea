"""A job's log is a file where one line is one event: libraries' progress bars and advice stay out of it."""

from __future__ import annotations

import logging
import warnings

# Read by the libraries when they are imported, so it must be in the environment of every process.
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}

# Said when DeepSpeed is imported, on every machine without a GPU, the driver's on a cluster that has some among them.
logging.getLogger("DeepSpeed").addFilter(lambda said: not said.getMessage().startswith("Setting accelerator to CPU"))


def quiet() -> None:
    """Silence what the environment cannot."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch|deepspeed|transformers")
    warnings.filterwarnings("ignore", "The given buffer is not writable")  # weights in the object store: only read
