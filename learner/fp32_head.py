"""The last layer in fp32 on a body in bf16 (MiniMax-M1, arXiv 2506.13585, section 3.2)."""

from __future__ import annotations

import torch


class Fp32Head(torch.nn.Module):
    """A model's output embeddings, computed in fp32 on the very parameters they were, tied or not."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] in fp32 of hidden states [..., width]."""
        bias = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(hidden.float(), self.weight.float(), bias)
