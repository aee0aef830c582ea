"""The part of a model card that says how to run the model, in code of transformers and of vLLM alone."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.export_source import Source
from configs.schema import Precision
from rollout.chat import ChatFormat

_DTYPES = {Precision.FP32: "float32", Precision.BF16: "bfloat16"}  # as evaluated; vLLM halves fp32 by itself
_NEVER = -100.0  # what vLLM adds to the logit of a token that a response must not hold


def usage(source: Source, kind: str, adapter: bool, chat: ChatFormat, temperature: float) -> Iterator[str]:
    """Paragraphs and code. `FOLDER` is where the export is, `messages` what the card shows above."""
    recipe = source.recipe
    tokens, dtype = recipe.evaluation.response_tokens, _DTYPES[recipe.engine.precision]
    sampled = "greedily" if temperature == 0 else f"at temperature {temperature:g}"
    yield (
        f"The evaluation below sampled {sampled}, up to {tokens} tokens, without top-p, top-k or "
        "penalties, and `generation_config.json` says the same: other sampling changes what a confidence is worth."
    )
    if chat.takes_images:
        yield (
            "`messages` are those above, with each picture, opened by Pillow, in its place: "
            '`{"type": "image", "image": picture}`; for vLLM `{"type": "image_pil", "image_pil": picture}`.'
        )
    yield fenced(_by_transformers(kind), "python")
    if adapter:
        yield "With vLLM, `BASE` being the base model and `RANK` a rank of vLLM's that is no less than the adapter's:"
    yield fenced(_by_vllm(adapter, chat, temperature, tokens, dtype), "python")


def fenced(text: str, language: str = "") -> str:
    """The text as a block of code, whatever it holds."""
    fence = "`" * 3
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.removesuffix(chr(10))}\n{fence}"


def _by_transformers(kind: str) -> str:
    return f"""\
from transformers import AutoProcessor, {kind}

processor = AutoProcessor.from_pretrained("FOLDER")
model = {kind}.from_pretrained("FOLDER")
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
made = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
response = processor.decode(made, skip_special_tokens=True)
"""


def _by_vllm(adapter: bool, chat: ChatFormat, temperature: float, tokens: int, dtype: str) -> str:
    barred = dict.fromkeys(chat.barred_token_ids(), _NEVER)
    never = f", logit_bias={barred}" if barred else ""  # vLLM does not read suppress_tokens
    loaded, asked, lora = f'LLM("FOLDER", dtype="{dtype}")', "", ""
    if adapter:
        limits = f", mm_processor_kwargs={chat.processor_options}" if chat.processor_options else ""
        loaded = f'LLM("BASE", dtype="{dtype}", tokenizer="FOLDER", enable_lora=True, max_lora_rank=RANK{limits})'
        asked = ', lora_request=LoRARequest("adapter", 1, "FOLDER")'
        lora = "from vllm.lora.request import LoRARequest\n"
    return f"""\
from vllm import LLM, SamplingParams
{lora}
if __name__ == "__main__":  # vLLM starts processes, and those may read this file
    llm = {loaded}
    sampling = SamplingParams(temperature={temperature:g}, max_tokens={tokens}{never})
    response = llm.chat(messages, sampling, use_tqdm=False{asked})[0].outputs[0].text
"""
