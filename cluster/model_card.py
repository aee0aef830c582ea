"""The model card of an export: all it says is read off the run's recipe, its log, its evaluation and the checks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from cluster.card_training import training
from cluster.card_usage import fenced, usage
from cluster.export_check import Checked
from cluster.export_evaluation import Evaluated
from cluster.export_files import temperature_of
from cluster.export_source import Source
from cluster.interval_tables import interval_rows
from cluster.parsing_snippet import parsing_snippet
from configs.choices import ConfidenceScale
from configs.response import Response
from rewards.bootstrap import distinct_prompts
from rollout.chat import ChatFormat
from rollout.prompts import Prompt

_REPORTED = {"accuracy": "accuracy", "brier": "brier_score", "ece": "expected_calibration_error"}  # to the hub
_LEGEND = """\
Intervals hold 95% of the resamples of the prompts. mean c: the mean stated confidence. ECE (in points, over bins of
equal width) and Brier score: lower is better. AUROC: of the confidence for being right. AURC: mean share of wrong
answers among the most confident. maj.: of answers that are the annotators' majority, where their votes are known;
excess: mean (confidence - annotators' share)^2."""


@dataclass(frozen=True, slots=True, eq=False)
class Card:
    """What the card is written from."""

    name: str  # of the export
    source: Source
    chat: ChatFormat
    kind: str  # transformers' class that loads the model
    adapter: bool  # the export holds an adapter, not a model
    prompt: Prompt  # an example of those it was evaluated on
    evaluated: Sequence[Evaluated]
    checked: Sequence[Checked]

    def __str__(self) -> str:
        """The file's text."""
        sections = [
            f"---\n{self._metadata()}\n---",
            f"# {self.name}",
            self._opening(),
            *self._prompt(),
            *self._response(),
            "## Use",
            *usage(self.source, self.kind, self.adapter, self.chat, temperature_of(self.source)),
            *training(self.source, self._base()),
            *self._evaluation(),
            *self._limits(),
        ]
        return "\n\n".join(sections) + "\n"

    def _metadata(self) -> str:
        path = self.source.recipe.model.path
        task = "image-text-to-text" if self.chat.takes_images else "text-generation"
        results = [
            EvalResult(
                task_type=task,
                dataset_type=self.source.recipe.name,
                dataset_name=one.name,
                dataset_split=one.name,  # else the hub takes a run's files for one
                metric_type=metric,
                metric_value=round(one.metrics[key].value, 6),
            )
            for one in self.evaluated
            for key, metric in _REPORTED.items()
            if key in one.metrics
        ]
        data = ModelCardData(
            model_name=self.name,
            base_model=None if path is None or Path(path).exists() else path,
            library_name="peft" if self.adapter else "transformers",
            pipeline_tag=task,
            tags=["calibration", "confidence"],
            eval_results=results or None,
        )
        return data.to_yaml()

    def _base(self) -> str:
        """The model the run started from, as a stranger may know it."""
        model = self.source.recipe.model
        if model.gguf is not None:
            return f"the GGUF file `{model.gguf.file}`" + (f" of {model.gguf.package}" if model.gguf.package else "")
        if model.path is None:
            return "random weights"
        return f"`{Path(model.path).name}`, a local folder" if Path(model.path).exists() else model.path

    def _opening(self) -> str:
        says = "and states how sure it is of it" if self.source.states_confidence else "without a confidence"
        return (
            f"A {'vision-language' if self.chat.takes_images else 'language'} model that gives its reasoning, then an "
            f"answer, {says}. It is {'the adapter' if self.adapter else 'the model'} of stage {self.source.number} of "
            f"the run `{self.source.recipe.name}`, trained by Caliber."
        )

    def _prompt(self) -> Iterator[str]:
        yield "## Prompt"
        yield "One of those it was evaluated on. No number here speaks of other questions, or of other words for them."
        yield fenced(json.dumps(self.chat.conversation(self.prompt.messages), indent=1, ensure_ascii=False), "json")
        yield "The chat template makes of it what the model reads:"
        yield fenced(self.chat.render(self.prompt).text)
        response = next((one.response for one in self.evaluated if one.response is not None), None)
        if response is not None:
            yield "A response of its evaluation:"
            yield fenced(response)

    def _response(self) -> Iterator[str]:
        form = self.source.recipe.response
        elements = ", ".join(f"`<{name}>`" for name in form.reasoning_elements)
        yield "## Response"
        yield (
            f"`<think>` holds {f'these tags, each once, in this order: {elements}' if elements else 'the reasoning'}; "
            "`<answer>` the answer" + ("; `<confidence>` the confidence." if self.source.states_confidence else ".")
        )
        if self.source.states_confidence:
            yield _scale(form)
            yield "To read it, with nothing but Python's standard library:"
            yield fenced(parsing_snippet(form), "python")
            yield "A response that was cut at the limit of its length does not have the form, whatever it looks like."

    def _evaluation(self) -> Iterator[str]:
        yield "## Evaluation"
        yield _LEGEND if self.evaluated else "It was not evaluated."
        for one in self.evaluated:
            malformed = 100 * (1 - one.held.answered.mean())
            rows = [("", "value", "95% interval"), ("---",) * 3, *interval_rows(one.metrics)]
            yield f"### {one.name}"
            yield (
                f"Prompts: {len(distinct_prompts(one.held))}; responses to each: "
                f"{self.source.recipe.evaluation.samples_per_prompt}; judgements they were held against: "
                f"{len(one.held)}, {malformed:.1f}% of them for malformed responses: wrong, and without a confidence."
            )
            if one.held.unscored:
                yield f"Other responses, on which there is no verdict, in no number here: {len(one.held.unscored)}."
            yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
            if one.diagram is not None:
                yield f"![Reliability diagram]({one.diagram_file})"

    def _limits(self) -> Iterator[str]:
        lines = [
            *self.source.doubts(),
            "The confidence was measured on prompts like those above: for other questions, candidates or pictures it "
            "says nothing until it has been measured there.",
            "The luck of a run's seed is not in the intervals.",
            "This card names no licence: those of the base model and of the data decide.",
        ]
        if self.chat.takes_images:
            lines.append("Pictures were seen upright, as RGB, on white where they are transparent.")
        if self.adapter:
            lines.append(f"It is of use with its base alone: {self._base()}.")
        yield "## Limits"
        yield "\n".join(f"- {line}" for line in lines)
        yield "## Checked"
        yield "In processes without Caliber, in fp32, against the model as it was trained:"
        yield "\n".join(f"- {one}" for one in self.checked)


def _scale(form: Response) -> str:
    if form.confidence_scale is ConfidenceScale.VERBAL:
        worth = ", ".join(f"`{word}` {value:g}" for word, value in form.confidences.items())
        return f"A confidence is one of these words, each worth a probability that the answer is right: {worth}."
    first, second, *_, last = form.confidences
    between = "is well formed too" if form.confidence_off_grid else "is malformed"
    return (
        f"A confidence is the probability that the answer is right, on the {form.confidence_scale} scale: `{first}`, "
        f"`{second}`, … `{last}`. What lies between the steps of {form.confidence_step:g} {between}."
    )
