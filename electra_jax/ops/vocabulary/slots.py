"""What every implementation of the vocabulary head is specialised for, and what it returns of every slot."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from electra_jax.ops.noise import Noise

DISALLOWED = 1000.0  # subtracted from the true id's logit by disallow_correct, as in the original


class Inputs(NamedTuple):
    """The arrays of the head; ids from `HeadOptions.vocab_size` on are padding of the table."""

    hidden_BxKxE: jax.Array
    table_VxE: jax.Array
    bias_V: jax.Array
    targets_BxK: jax.Array
    noise: Noise


ROWS = ("hidden_BxKxE", "targets_BxK", "noise")  # what is split by rows


def gradients(arrays: Iterable[jax.Array], like: Iterable[jax.Array]) -> Inputs:
    """The gradients of hidden states, table and bias, in the dtypes of these; targets and noise have none."""
    nothing: Any = None
    hidden, table, bias = (d.astype(x.dtype) for d, x in zip(arrays, like, strict=True))
    return Inputs(hidden, table, bias, nothing, nothing)


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What the compiled head is specialised for; `vocab_size` counts the ids that can be learned and drawn."""

    vocab_size: int
    temperature: float = 1.0
    disallow_correct: bool = False
    tile: int
    sampler: str = "gumbel"

    @property
    def plain(self) -> bool:
        """Whether samples come from the model's own distribution."""
        return self.temperature == 1.0 and not self.disallow_correct


class PerSlot(NamedTuple):
    """The head's results for every chosen position; float32 [B, K] but for the two ids, int32."""

    loss: jax.Array  # nats
    entropy: jax.Array  # of the generator's distribution, nats
    likeliest: jax.Array
    sampled: jax.Array
    # Log-probability of the sample under the sampling distribution: for objectives that correct for it, such as
    # noise-contrastive estimation. XLA leaves out what it costs where it is not used.
    log_q: jax.Array


def sampling_logits(
    logits_BxKxT: jax.Array, ids_T: jax.Array, targets_BxK: jax.Array, options: HeadOptions
) -> jax.Array:
    """The logits of the sampling distribution at these ids: by temperature, perhaps without the true id."""
    draw_BxKxT = logits_BxKxT
    if options.temperature != 1.0:
        draw_BxKxT = draw_BxKxT / options.temperature
    if options.disallow_correct:
        draw_BxKxT = draw_BxKxT - DISALLOWED * (ids_T == targets_BxK[..., None])
    return draw_BxKxT
