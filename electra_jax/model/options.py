"""What a config says of an encoder."""

from dataclasses import dataclass

ELECTRA, MODERN = "electra", "modern"  # families: names of `model.family`


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """What the config section `model` says of an encoder, in pretraining and fine-tuning alike."""

    layers: int  # layers of the discriminator's encoder
    width: int  # width of its hidden states
    heads: int  # heads of its attention, which divide the width
    ffn: int  # width of its feed-forward layers
    embedding: int  # width of the embeddings, which both networks share
    positions: int  # the longest row
    types: int  # kinds of segments that a row may have
    dropout: float  # probability that a hidden number is dropped in training
    attention_dropout: float  # probability that an attention weight is dropped in training
    init_std: float  # standard deviation of fresh weights
    dtype: str  # type of matrix products: float32 | bfloat16
    residual_dtype: str  # type of the stream between layers: float32 | bfloat16
    remat: str  # what of each layer the backward pass computes again: none | attention | layer
    family: str = ELECTRA  # kind of encoder: electra | modern (pre-norm, rotary positions, local attention, GeGLU)
    local_attention: int = 0  # modern: tokens that a local layer sees, half on each side; 0: 128
    global_attn_every_n_layers: int = (
        0  # modern: of so many layers the first sees the whole row; 0: 3
    )
    global_rope_theta: float = (
        0.0  # modern: base of the rotary positions of global layers; 0: 160,000
    )
    local_rope_theta: float = 0.0  # modern: base of those of local layers; 0: 10,000
    embedding_dropout: float = (
        0.0  # modern: probability that a number of the embeddings is dropped in training
    )
    mlp_dropout: float = 0.0  # modern: the same of a number between the feed-forward products

    @property
    def has_types(self) -> bool:
        """Whether the network is told which segment a token is in."""
        return self.family == ELECTRA
