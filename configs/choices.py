"""Settings that take one of a few words."""

from __future__ import annotations

from enum import StrEnum


class Column(StrEnum):
    """What a row may hold, by the names that `data.columns` gives to a file's own."""

    ID = "id"
    TASK = "task"
    MESSAGES = "messages"  # role and content
    CONVERSATIONS = "conversations"  # from and value
    PROMPT = "prompt"  # a question as text, or as messages
    RESPONSE = "response"  # beside a prompt
    INSTRUCTION = "instruction"  # a question as Alpaca has it
    INPUT = "input"  # below an instruction
    OUTPUT = "output"  # the response to one
    HISTORY = "history"  # the turns before one
    SYSTEM = "system"
    IMAGES = "images"
    CANDIDATES = "candidates"
    LABEL = "label"
    COUNTS = "counts"


# Each tells which kind of row it is, and holds its question.
QUESTIONS = (Column.MESSAGES, Column.CONVERSATIONS, Column.PROMPT, Column.INSTRUCTION)


class Precision(StrEnum):
    """Arithmetic of weights and activations."""

    FP32 = "fp32"
    BF16 = "bf16"


class ConfidenceScale(StrEnum):
    """How a response states its confidence."""

    DECIMAL = "decimal"  # 0.85
    PERCENT = "percent"  # 85%
    VERBAL = "verbal"  # one of response.confidence_words


class Reading(StrEnum):
    """Which rules say whether a response is well formed, what its answer is, and whether that is right."""

    STRICT = "strict"  # the recipe's own: section `response`, and rewards.correctness
    EMOCALIBER = "emocaliber"  # EmoCaliber's released reward
    RLCR = "rlcr"  # RLCR's released reward


class Correctness(StrEnum):
    """What says whether an answer is right; beside these a scorer of the user's own, `package.module:Class`."""

    EXACT = "exact"  # the same text once normalised, one of the candidates where there are some
    NUMERIC = "numeric"  # the same number, however it is written
    CHOICE = "choice"  # the letter of a multiple choice
    JUDGE = "judge"  # a service over HTTP: section rewards.judge


class Reference(StrEnum):
    """What an answer is held against."""

    LABEL = "label"  # the row's label; the most frequent one where there are counts
    ANNOTATOR = "annotator"  # one annotator's judgement, drawn afresh for each visit of a prompt
    SHARES = "shares"  # all annotators: correctness is the share of them that agree with the answer


class ScoringRule(StrEnum):
    """Strictly proper scores of a stated confidence."""

    BRIER = "brier"
    LOG = "log"  # clipped to [log_clip, 1 - log_clip]
    UNCLIPPED_LOG = "unclipped_log"  # unbounded: for the preset that has it
    SPHERICAL = "spherical"


class Credit(StrEnum):
    """Which tokens a reward part is credited to."""

    APART = "apart"  # confidence tokens: calibration; all others: correctness
    JOINT = "joint"  # every token: the weighted sum


class ConfidenceGradient(StrEnum):
    """How the expected reward of the confidence tokens is differentiated."""

    SAMPLED = "sampled"  # through the confidence that was sampled
    EXACT = "exact"  # through the policy's probability of every confidence of the grid


class Correction(StrEnum):
    """How stage 3 corrects for tokens that other weights sampled, in another arithmetic; `configs.corrections`."""

    NONE = "none"  # not at all: the plain policy gradient
    TRUNCATED = "truncated"  # importance ratio of the token, capped
    ICEPOP = "icepop"  # the same, and nothing of a token whose ratio is out of range
    CISPO = "cispo"  # the same, clipped on both sides
    GSPO = "gspo"  # importance ratio of the response, clipped as PPO does
    DECOUPLED_PPO = "decoupled_ppo"  # PPO's clip around a policy newer than the engine's


class Proximal(StrEnum):
    """Where decoupled PPO's proximal policy comes from."""

    RECOMPUTED = "recomputed"  # the weights before the batch's first optimizer step, in a forward pass of their own
    INTERPOLATED = "interpolated"  # between the engine's policy and the learner's, by policy lag


class KlEstimator(StrEnum):
    """Estimates of a KL divergence from sampled tokens that are of use as a loss; `learner.kl`."""

    K2 = "k2"  # gradient of KL(policy || reference)
    K3 = "k3"  # gradient of KL(reference || policy), value of KL(policy || reference)


class LossMean(StrEnum):
    """What stage 3's loss is a mean over."""

    TOKEN = "token"  # all tokens of the batch
    SEQUENCE = "sequence"  # responses, each of them the mean over its tokens
    FIXED_LENGTH = "fixed_length"  # responses, each of them the sum over its tokens by rl.response_tokens


class Baseline(StrEnum):
    """What is subtracted from a reward within its group."""

    MEAN = "mean"
    LEAVE_ONE_OUT = "leave_one_out"


class Preset(StrEnum):
    """Mixes of published methods; `configs.presets` has their settings."""

    DEFAULT = "default"  # correctness for the answer, Brier for the confidence, apart
    EMOCALIBER = "emocaliber"  # the released code of EmoCaliber
    RLCR = "rlcr"  # arXiv 2507.16806
    DCPO = "dcpo"  # arXiv 2603.09117
    RLVR = "rlvr"  # correctness alone: what calibration is compared with


class GroupsPerWorker(StrEnum):
    """How many groups a rollout worker samples at once, where that is no number."""

    ADAPTIVE = "adaptive"  # as many as its engine has room for, by its own account


class StaleGroups(StrEnum):
    """What a step does that would make an unfinished group too old to be trained on."""

    WAIT = "wait"  # it waits for the group: none is lost to slowness
    DROP = "drop"  # it goes on, and the group is dropped


class SeedSource(StrEnum):
    """Where the confidences of stage 2 come from."""

    AGREEMENT = "agreement"  # share of the stage-1 model's own samples that give the same answer
    ANSWER_PROBABILITY = "answer_probability"  # the probability that it sampled the answer with, after its reasoning
    ANNOTATORS = "annotators"  # annotators' share of the answer


class WandbMode(StrEnum):
    """Where Weights & Biases keeps a run."""

    DISABLED = "disabled"
    OFFLINE = "offline"  # files in the run's folder
    ONLINE = "online"


class Through(StrEnum):
    """The way of weights from the learner to rollout workers."""

    OBJECT_STORE = "object_store"  # Ray's
    NCCL = "nccl"  # from GPU to GPU
