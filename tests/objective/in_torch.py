"""Networks in PyTorch, float64, by the paths of our parameters: the other side of tests of objectives.

Written from the papers' formulas and not from our code. A network here is a function of a dict of leaves, so that
`backward` leaves the gradient of every parameter under our path. The blocks are BERT's (post-norm, learned positions).
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

Leaves = dict[str, torch.Tensor]
Rows = dict[str, torch.Tensor]


def leaves(params: dict[str, np.ndarray]) -> Leaves:
    """Parameters by path, flat, as float64 leaves that take a gradient."""
    return {
        name: torch.tensor(x, dtype=torch.float64).requires_grad_() for name, x in params.items()
    }


def rows(batch: dict[str, Any]) -> Rows:
    """A batch of integers."""
    return {name: torch.tensor(np.asarray(x)).long() for name, x in batch.items()}


def gradients(p: Leaves) -> dict[str, np.ndarray]:
    """What `backward` left, zeros where it did not come."""
    return {
        name: (torch.zeros_like(x) if x.grad is None else x.grad).numpy() for name, x in p.items()
    }


def linear(p: Leaves, name: str, x: torch.Tensor) -> torch.Tensor:
    """x @ kernel + bias."""
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def norm(p: Leaves, name: str, x: torch.Tensor) -> torch.Tensor:
    """LayerNorm, eps 1e-12."""
    return functional.layer_norm(x, x.shape[-1:], p[f"{name}/scale"], p[f"{name}/bias"], eps=1e-12)


def hidden(
    p: Leaves, embeddings: str, encoder: str, heads: int, ids: torch.Tensor, b: Rows, after: int = 0
) -> torch.Tensor:
    """Hidden states of an encoder [B, L, D]. `after`: 1 sees no later token, -1 no earlier one, 0 sees all."""
    x = p[f"{embeddings}/word"][ids] + p[f"{embeddings}/position"][b["positions"]]
    x = norm(p, f"{embeddings}/norm", x + p[f"{embeddings}/type"][b["types"]])
    if f"{encoder}/project/kernel" in p:
        x = linear(p, f"{encoder}/project", x)
    seen = b["docs"][:, :, None] == b["docs"][:, None, :]
    order = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool)
    if after:
        seen = seen & (order.tril() if after > 0 else order.triu())
    layers = {name.split("/")[1] for name in p if name.startswith(f"{encoder}/layer_")}
    for layer in sorted(layers):
        x = _block(p, f"{encoder}/{layer}", heads, x, seen)
    return x


def _block(p: Leaves, at: str, heads: int, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    rows, length, width = x.shape
    q, k, v = (
        linear(p, f"{at}/{name}", x).view(rows, length, heads, width // heads).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5
    mixed = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1) @ v
    x = norm(
        p,
        f"{at}/attention_norm",
        x + linear(p, f"{at}/out", mixed.transpose(1, 2).reshape(x.shape)),
    )
    up = functional.gelu(linear(p, f"{at}/up", x))
    return norm(p, f"{at}/output_norm", x + linear(p, f"{at}/down", up))


def words(p: Leaves, embeddings: str, head: str, x: torch.Tensor, vocab: int) -> torch.Tensor:
    """Log-probabilities of the vocabulary [..., V]."""
    x = norm(p, f"{head}/norm", functional.gelu(linear(p, f"{head}/dense", x)))
    return (x @ p[f"{embeddings}/word"][:vocab].T + p[f"{head}/bias"][:vocab]).log_softmax(-1)


def detection(p: Leaves, head: str, x: torch.Tensor) -> torch.Tensor:
    """A number a token [B, L]."""
    return linear(p, f"{head}/out", functional.gelu(linear(p, f"{head}/dense", x)))[..., 0]


def spliced(b: Rows, sampled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids with the samples at the chosen positions, where these are)."""
    ids, chosen = b["ids"].clone(), torch.zeros_like(b["ids"], dtype=torch.bool)
    for row, slot in (b["weights"] > 0).nonzero():
        ids[row, b["chosen"][row, slot]] = sampled[row, slot]
        chosen[row, b["chosen"][row, slot]] = True
    return ids, chosen


def at_chosen(b: Rows, x: torch.Tensor) -> torch.Tensor:
    """Of [B, L, ...] what stands at the chosen positions [B, K, ...]."""
    return x[torch.arange(len(x))[:, None], b["chosen"]]


def loss_of(log_p: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """-log p of these ids, of [..., V]."""
    return -log_p.gather(-1, ids[..., None])[..., 0]
