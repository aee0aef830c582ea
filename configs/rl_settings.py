"""Stage 3's settings, and the optimizer's that all stages have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from configs.choices import Correction, GroupsPerWorker, KlEstimator, LossMean, Proximal, StaleGroups
from configs.corrections import TAKEN, unused, with_its_numbers
from configs.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section, Share


class Optimizer(Section):
    """AdamW and its schedule: linear warm-up, then decay to `final_fraction` of the peak."""

    learning_rate: PositiveFloat
    """Peak learning rate."""
    warmup_steps: NonNegativeInt = 10
    """Steps of linear warm-up."""
    final_fraction: Share = 0.1
    """Learning rate at the last step, as a fraction of the peak (cosine decay; 1 keeps it constant)."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay rates of AdamW's moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""


class Rl(Section):
    """Stage 3: asynchronous reinforcement learning."""

    steps: PositiveInt
    """Batches trained on."""
    prompts_per_step: PositiveInt = 16
    """Prompt groups trained on in a step."""
    minibatches: PositiveInt = 1
    """Parts that a step's groups are split into, an optimizer step for each; the schedule counts those."""
    samples_per_prompt: Annotated[int, Field(ge=2)] = 8
    """Responses sampled for each prompt."""
    response_tokens: PositiveInt = 512
    """Tokens of a response at most."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature, applied in the learner too."""
    max_policy_lag: NonNegativeInt = 1
    """No token in a batch is older than this many weight versions; 0 is synchronous."""
    stale_groups: StaleGroups = StaleGroups.WAIT
    """What a step does that would make an unfinished group older than that: wait for it, or go on and drop the group.
    Long responses to hard prompts are dropped more often than others, and what is left is calibrated without them."""
    groups_per_worker: PositiveInt | GroupsPerWorker | None = None
    """Groups a rollout worker samples at once; as many as are admitted if not set; adaptive: as many as its engine has
    places and keys and values for, found while it runs. Those that wait start under newer weights: no more than keep
    the learner busy are of use."""
    correction: Correction = Correction.TRUNCATED
    """How tokens are corrected for that other weights sampled, in another arithmetic. The exact confidence gradient is
    over the policy's own probabilities, and outside of it."""
    importance_cap: PositiveFloat | None = None
    """Importance ratios are capped at this value (truncated; decoupled_ppo, the proximal policy's to the engine's);
    2 if not set."""
    ratio_low: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Lowest ratio that is not masked (icepop) or clipped (cispo, gspo, decoupled_ppo); 0.5, 0.5, 0.9997 and 0.8 if not
    set."""
    ratio_high: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """Highest ratio that is not masked (icepop) or clipped (cispo, gspo, decoupled_ppo); 5, 2, 1.0004 and 1.2 if not
    set."""
    proximal: Proximal | None = None
    """The policy that decoupled_ppo clips around; recomputed if not set."""
    loss_mean: LossMean = LossMean.TOKEN
    """What the loss is a mean over, always of all ranks and micro-batches. Dr. GRPO's is fixed_length, GSPO's
    sequence."""
    kl_weight: NonNegativeFloat = 0.0
    """Weight of the KL divergence to the model stage 3 started from, on all tokens but the confidence's: it holds what
    the model sees and says while its confidences move. 0 is off."""
    kl_estimator: KlEstimator = KlEstimator.K3
    """How it is estimated. There is no k1: as a loss it pulls nowhere on average, and mended it is k2."""
    optimizer: Optimizer
    """Optimizer and schedule."""
    checkpoint_every_steps: PositiveInt = 50
    """Steps between checkpoints."""
    checkpoints_kept: PositiveInt = 2
    """Checkpoints on disk, the newest ones; with 1 there is none to go back to should that one be damaged."""
    seconds_per_wait: PositiveFloat = 600.0
    """Time limit of every wait on a worker, a learner rank or a batch. Learner ranks wait half as long for each other,
    so that the one that hangs is told from those that wait for it."""

    @model_validator(mode="before")
    @classmethod
    def _with_its_corrections_numbers(cls, given: object) -> object:
        return with_its_numbers(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _sets_nothing_in_vain(self) -> Rl:
        if found := unused(self.correction, {name: getattr(self, name) for name in type(self).model_fields}):
            raise ValueError(
                f"rl.{found[0]} is never read with rl.correction {self.correction}, which takes "
                f"{' and '.join(f'rl.{name}' for name in TAKEN[self.correction]) or 'nothing'}; leave it out, or null"
            )
        return self
