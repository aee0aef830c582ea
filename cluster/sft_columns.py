"""The main numbers of a line of an SFT stage's log."""

from __future__ import annotations

from cluster.run_log import Column

SFT_COLUMNS = (
    Column("loss", "loss", 4),
    Column("evaluation_loss", "eval loss", 4),
    Column("grad_norm", "grad norm", 2),
    Column("learning_rate", "lr e-6", 1, 1e6),
    Column("tokens_per_second", "tokens/s", 0),
    Column("seconds", "s/step", 2),
)
