"""All-Tokens MLM: masked language modelling on replaced text that predicts every token, with a copy mechanism.

An ablation of ELECTRA (Clark et al., 2020, section 3.4): BERT and ELECTRA combined. A generator's samples stand in
place of the chosen tokens, and the full-size network predicts the true id of every token. Its distribution is D on the
token that stands there, D a sigmoid of the hidden state, plus 1 - D times the softmax over the vocabulary. Its loss is
the mean over all tokens that are not padding.
"""

from collections.abc import Mapping
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.learn.learner import Batch, Context, Sums
from electra_jax.model.electra import Dimensions, MaskedLM, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, losses, pair, replace_mlm
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import dropout
from electra_jax.ops.vocabulary import vocabulary_slots

RANGES = replace_mlm.RANGES
Options = replace_mlm.Options
numbers, clashes = replace_mlm.numbers, replace_mlm.clashes
COPY = "copy"  # the gate's parameters


class AllTokensMlmObjective(replace_mlm.ReplaceMlmObjective):
    """generator_weight x MLM + main_weight x the loss of the full-size network at every token."""

    name = "all_tokens_mlm"

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters of the generator, the masked LM and the gate; float32."""
        hidden_1xD = jnp.zeros((1, self.dims.spec.width))
        gate = _gate().init(jax.random.fold_in(key, 2), hidden_1xD)["params"]
        return super().init(key) | {COPY: gate}

    def totals(self, batch: Batch) -> Sums:
        """Chosen positions, and tokens that are not padding: the two denominators of the loss."""
        valid = jnp.sum(batch["docs"] > 0).astype(jnp.float32)
        return {"masked": jnp.sum(batch["weights"]), "main": valid}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Those of replace_mlm (`main_loss` at all tokens), the loss at the chosen ones, and how likely a copy is."""
        values = super().metrics(sums)
        values["chosen_loss"] = losses.ratio(sums["chosen_loss"], sums["masked"])
        values["copy_replaced"] = losses.ratio(sums["copy_replaced"], sums["replaced"])
        values["copy_original"] = losses.ratio(
            sums["copy_original"], sums["main"] - sums["replaced"]
        )
        return values

    def exports(self) -> tuple[Export, ...]:
        """The full-size masked LM without its gate, and the generator."""
        return exports(self.dims)

    def _main(self, context: Context, fake_BxL: jax.Array) -> Sums:
        params, batch, network = context.params, context.batch, MaskedLM(self.dims)
        hidden_BxLxD = network.apply(
            {"params": params},
            Tokens.of(batch)._replace(ids=fake_BxL),
            dropout(context, pair.DISCRIMINATOR),
            method=MaskedLM.hidden,
        )
        hidden_BxLxE, table_VxE, bias_V = network.apply(
            {"params": params}, hidden_BxLxD, method=MaskedLM.words
        )
        slots = vocabulary_slots(
            hidden_BxLxE,
            table_VxE,
            bias_V,
            batch["ids"],
            vocab_size=self.dims.vocab_size,
            noise=pair.sample_noise(context),
        )
        gate_BxL = _gate().apply({"params": params[COPY]}, hidden_BxLxD)[..., 0]
        same_BxL, valid_BxL = fake_BxL == batch["ids"], batch["docs"] > 0
        chosen_BxL = corrupt.selected(batch)
        loss_BxL = mixture(gate_BxL, slots.loss, same_BxL)
        copy_BxL = jax.lax.stop_gradient(jax.nn.sigmoid(gate_BxL))
        return {
            "main_loss": losses.masked_sum(loss_BxL, valid_BxL),
            "main_correct": losses.masked_sum(slots.likeliest == batch["ids"], chosen_BxL),
            "main": jnp.sum(valid_BxL.astype(jnp.float32)),
            "chosen_loss": losses.masked_sum(loss_BxL, chosen_BxL),
            "copy_replaced": losses.masked_sum(copy_BxL, valid_BxL & ~same_BxL),
            "copy_original": losses.masked_sum(copy_BxL, valid_BxL & same_BxL),
            "replaced": losses.masked_sum(~same_BxL, valid_BxL),
        }

    def _main_flops(self, length: int, slots: int) -> float:
        return super()._main_flops(length, length) + 2 * length * self.dims.spec.width


def mixture(gate: jax.Array, word_loss: jax.Array, same: jax.Array) -> jax.Array:
    """-log(D [the input is the target] + (1 - D) P(target)): D = sigmoid(gate), P = exp(-word_loss)."""
    log_word = -word_loss - jax.nn.softplus(gate)
    return -jnp.where(same, jnp.logaddexp(-jax.nn.softplus(-gate), log_word), log_word)


def _gate() -> nn.Dense:
    return nn.Dense(1, dtype="float32", kernel_init=nn.initializers.glorot_uniform())


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The full-size masked LM, which transformers loads without its gate, and the generator."""
    model, generator = replace_mlm.exports(dims)
    what = (
        "an ELECTRA-shaped encoder trained to predict every token of a replaced text, with a copy mechanism that this "
        "folder does not hold: its softmax is for tokens that were replaced"
    )
    return replace(model, what=what, beside=(COPY,)), generator


make = AllTokensMlmObjective
