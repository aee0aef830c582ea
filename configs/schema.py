"""What a recipe may say. Every field carries its unit in its name or its description.

One recipe describes the whole pipeline: data, model, the two SFT stages, the seeding of
confidences between them, reinforcement learning and evaluation. All sections are frozen;
`configs.load` builds a `Recipe` from YAML and answers mistakes with file and line.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from configs.choices import (
    Baseline,
    ConfidenceGradient,
    ConfidenceScale,
    Correction,
    Correctness,
    Credit,
    GroupsPerWorker,
    KlEstimator,
    LossMean,
    Precision,
    Preset,
    Proximal,
    Reading,
    Reference,
    ScoringRule,
    SeedSource,
    StaleGroups,
    Through,
    WandbMode,
)
from configs.cores import CoreLists
from configs.data_settings import Data, EmojiData, WordsData
from configs.model_settings import GgufModel, Model, ScratchModel
from configs.response import Response
from configs.reward_settings import Judge, MalformedParts, Rewards, RewardService, RewardWeights, TargetMix
from configs.rl_settings import Optimizer, Rl
from configs.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section, Share

__all__ = [
    "Baseline",
    "ConfidenceGradient",
    "ConfidenceScale",
    "Correction",
    "Correctness",
    "Credit",
    "Data",
    "EmojiData",
    "Engine",
    "Evaluation",
    "GgufModel",
    "GroupsPerWorker",
    "Judge",
    "KlEstimator",
    "Learner",
    "Lora",
    "LossMean",
    "MalformedParts",
    "Model",
    "Monitoring",
    "Optimizer",
    "Precision",
    "Preset",
    "Proximal",
    "Reading",
    "Recipe",
    "Reference",
    "Response",
    "RewardService",
    "RewardWeights",
    "Rewards",
    "Rl",
    "ScoringRule",
    "ScratchModel",
    "Section",
    "SeedSource",
    "Seeding",
    "Sft",
    "StaleGroups",
    "TargetMix",
    "Through",
    "Transfer",
    "Wandb",
    "WandbMode",
    "WordsData",
]


class Sft(Section):
    """One SFT stage."""

    steps: PositiveInt
    """Optimizer steps."""
    rows_per_step: PositiveInt = 32
    """Rows in a step, over all ranks and micro-batches."""
    optimizer: Optimizer
    """Optimizer and schedule."""
    confidence_token_weight: PositiveFloat = 1.0
    """Weight of a confidence's tokens in the loss, beside 1 for every other (stage 2): they are few."""
    eval_share: Share = 0.05
    """Share of the rows held out for the evaluation loss."""
    eval_every_steps: PositiveInt = 100
    """Steps between evaluation losses."""
    checkpoint_every_steps: PositiveInt = 200
    """Steps between checkpoints."""
    checkpoints_kept: PositiveInt = 2
    """Checkpoints on disk, the newest ones; with 1 there is none to go back to should that one be damaged."""
    log_every_steps: PositiveInt = 10
    """Steps between log lines."""


class Seeding(Section):
    """Confidences for stage 2's rows."""

    source: SeedSource = SeedSource.AGREEMENT
    """Where they come from. The answer's probability is free of a count's noise, and needs no more samples than rows;
    but where the reasoning all but says the answer, it is near 1 whatever the answer is worth."""
    samples_per_prompt: PositiveInt = 32
    """Responses sampled from the stage-1 model for each prompt (but for annotators)."""
    rows_per_prompt: PositiveInt = 8
    """Rows written for each prompt: so many of its well-formed responses, drawn at random (annotators: of its own)."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    prior: PositiveFloat = 0.5
    """A share of k of n is stated as (k + prior) / (n + 2 prior): never quite 0 or 1 (but for answer_probability)."""
    uniform_share: Share = 0.05
    """Share of the rows that state a confidence drawn from the whole range: support everywhere."""


class Lora(Section):
    """Low-rank adapters on the language model's linear layers; its other weights, and the vision tower's, stay."""

    rank: PositiveInt = 16
    """Rank of what an adapter adds to a layer's weights."""
    alpha: PositiveFloat | None = None
    """What an adapter adds is scaled by alpha / rank; alpha is the rank if not set."""
    targets: tuple[str, ...] | None = None
    """Layers that get adapters, by the last part of their names (q_proj, down_proj); all if not set."""

    @property
    def alpha_taken(self) -> float:
        """What `alpha` comes to."""
        return self.rank if self.alpha is None else self.alpha


class Learner(Section):
    """DeepSpeed ranks, each one Ray actor."""

    ranks: PositiveInt = 1
    """Learner processes."""
    cpus_per_rank: NonNegativeFloat = 1.0
    """Ray CPUs a rank reserves."""
    gpus_per_rank: NonNegativeFloat = 0.0
    """Ray GPUs a rank reserves."""
    threads_per_rank: PositiveInt | None = None
    """PyTorch threads of a rank; if not set, one for each core that it is kept on by `cores`, or may use on its node
    (CPU only). Several ranks of a node share its cores: set it for them."""
    cores: CoreLists | None = None
    """Cores that a node's ranks are kept on, an entry for each ("0-3", "4-7,12"), dealt out in turn on each node; the
    system places them if not set."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage; from 2 on gradients are summed over micro-batches in fp32, whatever the precision."""
    precision: Precision = Precision.BF16
    """Precision of the forward and backward pass; master weights are fp32."""
    fp32_head: bool = False
    """Compute the last layer, from hidden states to logits, in fp32 whatever the precision, as `engine.fp32_head` does:
    logits rounded to bf16 are part of what the engine's log-probabilities and the learner's differ by."""
    tokens_per_micro_batch: PositiveInt = 8192
    """Padded tokens in one forward pass at most (a longer single sequence still goes through)."""
    share_prompts: bool = True
    """Put a group through the model as one row: its prompt once, its responses side by side behind it under a tree
    mask. A group of more than `tokens_per_micro_batch` is split, and its prompt is computed again in each row. The same
    losses and gradients for fewer tokens, by as much as prompts are long and rows hold responses."""
    attention: str = "sdpa"
    """transformers' attention implementation."""
    lora: Lora | None = None
    """Train adapters instead of the whole model. Each stage trains its own and ends in a model that holds them merged.
    """
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""


class Engine(Section):
    """vLLM rollout workers, each one Ray actor."""

    workers: PositiveInt = 1
    """Rollout workers that a run starts with and needs: with fewer for longer than rl.seconds_per_wait it ends."""
    workers_at_most: PositiveInt | None = None
    """Rollout workers in stage 3 at most: beyond `workers` they join while it runs, as the cluster has room for them,
    and may leave with their nodes; `workers` if not set."""
    cpus_per_worker: NonNegativeFloat = 1.0
    """Ray CPUs a worker reserves."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """Ray GPUs a worker reserves."""
    threads_per_worker: PositiveInt | None = None
    """OpenMP threads of each process of a worker's engine; if not set, one for each core that it is kept on by `cores`,
    or that the machine has (CPU only). Several workers of a machine share its cores: set it for them."""
    cores: CoreLists | None = None
    """Cores that a node's workers are kept on, an entry for each ("0-15", "16-31"), dealt out in turn on each node; the
    system places them if not set."""
    tensor_parallel: PositiveInt = 1
    """GPUs an engine's weights are split over."""
    precision: Precision = Precision.BF16
    """Precision of weights and activations."""
    fp32_head: bool = False
    """Compute logits in fp32 whatever the precision; `learner.fp32_head` goes with it."""
    tokens_per_sequence: PositiveInt = 4096
    """Prompt and response tokens at most (max_model_len)."""
    sequences_at_once: PositiveInt = 256
    """Sequences batched together (max_num_seqs)."""
    tokens_per_batch: PositiveInt = 8192
    """Tokens in one forward pass of the engine (max_num_batched_tokens)."""
    memory_share: Share = 0.9
    """Share of a GPU's memory for the engine (GPU only)."""
    kv_cache_gib: PositiveFloat = 1.0
    """Room for keys and values, GiB (CPU only)."""
    enforce_eager: bool = True
    """Skip compilation and graphs: slower generation, faster start."""

    @property
    def most_workers(self) -> int:
        """What `workers_at_most` comes to."""
        return self.workers if self.workers_at_most is None else self.workers_at_most


class Transfer(Section):
    """How new weights get from the learner to the rollout workers."""

    through: Through = Through.OBJECT_STORE
    """Which way they take: Ray's object store, or with nccl from rank 0's GPU to the engines' GPUs. Rank 0 keeps two
    copies of the weights in its host's memory then, and nobody else any."""
    deltas: bool = False
    """Send the values that changed since the version before, bit for bit, and the whole weights only to workers that
    join. For bf16 and slow networks: in fp32 a step changes nearly every value. Costs a copy of the weights in the
    memory of rank 0's host, one in that of each worker's, and as much as one more in the object store."""
    seconds_per_update: PositiveFloat = 300.0
    """Time limit for a worker to take up new weights, no more than rl.seconds_per_wait. One that takes longer is
    replaced; until then the others get none that are newer."""
    full_every: Annotated[int, Field(ge=2)] = 20
    """With deltas: updates from one whole copy in the object store to the next, at most. A worker that joins reads the
    copy and the deltas since."""
    adapters: bool = False
    """With learner.lora: send the adapters alone. Stage 3's engines hold them beside the model's weights and compute
    with both, as the learner does: nothing is rounded by merging, and every token costs the adapters' products too."""


class Evaluation(Section):
    """How a model is evaluated after each stage."""

    temperature: NonNegativeFloat = 1.0
    """Sampling temperature; 0 is greedy."""
    stage1_temperature: NonNegativeFloat = 0.2
    """The same for stage 1's model: what it knows, without a confidence that could say how much of it is chance."""
    samples_per_prompt: PositiveInt = 1
    """Responses for each prompt."""
    response_tokens: PositiveInt = 512
    """Tokens of a response at most."""
    annotator_draws: PositiveInt = 1
    """Fresh annotators each response is held against, where there are counts."""
    bins: PositiveInt = 10
    """Bins of the expected calibration error."""
    seed: NonNegativeInt = 12345
    """Seed of the drawn annotators."""


class Wandb(Section):
    """Weights & Biases."""

    mode: WandbMode = WandbMode.DISABLED
    """Where the run is kept."""
    project: str = "caliber"
    """Project of the runs."""


class Monitoring(Section):
    """What a job shows of itself beside its log."""

    groups_shown: NonNegativeInt = 1
    """Groups of each of stage 3's steps that learner-0 writes a line of."""
    engine_metrics: bool = True
    """Export vLLM's own metrics of each rollout worker to Ray. Costs about 15 microseconds of a core for a token."""


class Mirror(Section):
    """A second place for all that a run keeps, on storage that outlives its machines."""

    address: str | None = None
    """Folder there, as fsspec names it ("s3://bucket/runs/emoji", "gs://…", "file:///…"), for this run alone; no mirror
    if not set. A job that does not find the run's folder fetches it from there. Keys are taken from where the
    storage's library looks for them, never from here."""
    seconds_between_copies: PositiveFloat = 300.0
    """Seconds from one copy of what has changed to the next. Rollouts are copied at a job's end."""
    seconds_for_last_copy: PositiveFloat = 3600.0
    """Seconds after which the copy at a job's end is given up, and the job fails. A file that has been begun is copied
    to its end, for which its storage's own limits hold. What is there then is good to go on from, as far as it goes."""


class Recipe(Section):
    """A whole pipeline."""

    name: str
    """Name of the run."""
    output: str
    """Folder of the run; relative to where the command is given."""
    seed: NonNegativeInt = 0
    """Seed of sampling, shuffling and initial weights."""
    data: Data
    model: Model
    response: Response = Response()
    stage1: Sft
    seeding: Seeding = Seeding()
    stage2: Sft
    rl: Rl
    rewards: Rewards = Rewards()
    reward_service: RewardService = RewardService()
    learner: Learner = Learner()
    engine: Engine = Engine()
    transfer: Transfer = Transfer()
    evaluation: Evaluation = Evaluation()
    wandb: Wandb = Wandb()
    monitoring: Monitoring = Monitoring()
    mirror: Mirror = Mirror()

    @property
    def adapters_alone(self) -> Lora | None:
        """The adapters that stage 3's engines get without the model they belong to; None where they get it whole."""
        return self.learner.lora if self.transfer.adapters else None
