"""The transformer encoder: a projection from the embedding width, then a stack of layers."""

from dataclasses import dataclass

import flax.linen as nn
import jax

from electra_jax.model.layers import Layer, LayerSpec
from electra_jax.ops.noise import Noise


@dataclass(frozen=True)
class EncoderSpec:
    """A stack of `layers` equal layers fed with embeddings of width `embedding`."""

    layers: int
    embedding: int
    layer: LayerSpec
    remat: bool


class Encoder(nn.Module):
    """Embeddings [B, L, E] -> hidden states [B, L, D]."""

    spec: EncoderSpec

    @nn.compact
    def __call__(self, x_BxLxE: jax.Array, docs_BxL: jax.Array, noise: Noise | None) -> jax.Array:
        s = self.spec
        x_BxLxD = x_BxLxE
        if s.embedding != s.layer.width:
            # The original leaves this layer on TensorFlow's default initialiser, glorot uniform.
            project = nn.Dense(
                s.layer.width,
                dtype=s.layer.dtype,
                kernel_init=nn.initializers.glorot_uniform(),
                name="project",
            )
            x_BxLxD = project(x_BxLxE)
        x_BxLxD, operand_BxLxD = x_BxLxD.astype(s.layer.residual_dtype), None
        # A parameter that is drawn within remat cannot be drawn together with others.
        layer = nn.remat(Layer) if s.remat and not self.is_initializing() else Layer
        for i in range(s.layers):
            x_BxLxD, operand_BxLxD = layer(s.layer, name=f"layer_{i}")(
                x_BxLxD, operand_BxLxD, docs_BxL, noise and noise.at(1 + i)
            )
            if s.remat:  # keeps what a layer takes
                operand_BxLxD = None
        return x_BxLxD
