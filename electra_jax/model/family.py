"""Families of encoders (`model.family`): what each is made of, which options it has, and what they can be."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from electra_jax.model.backbone import Embeddings, WordEmbeddings
from electra_jax.model.blocks import LayerSpec
from electra_jax.model.heads import DiscriminatorHead, GeneratorHead, ReplacedHead, WordHead
from electra_jax.model.options import ELECTRA, MODERN, EncoderOptions
from electra_jax.spec import UserError

# ModernBERT's: what an option of 0 stands for in its family.
MODERN_DEFAULTS = {
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
}
# Options that one family alone has -> what they are in the other.
MODERN_ONLY = dict.fromkeys([*MODERN_DEFAULTS, "embedding_dropout", "mlp_dropout"], 0)
ELECTRA_ONLY = {"types": 1, "dropout": 0.0}


class Family(NamedTuple):
    """The modules of a family's networks. All heads are called alike, and so are the embeddings."""

    embeddings: Callable[..., Any]
    generator_head: Callable[..., Any]
    discriminator_head: Callable[..., Any]


FAMILIES = {
    ELECTRA: Family(Embeddings, GeneratorHead, DiscriminatorHead),
    MODERN: Family(WordEmbeddings, WordHead, ReplacedHead),
}


class Layer(NamedTuple):
    """What a layer of the modern family sees, and how far its positions reach."""

    window: int | None  # the farthest key, in tokens; None: all
    rope_theta: float


def value(spec: EncoderOptions, name: str) -> Any:
    """An option of the modern family, 0 being ModernBERT's."""
    return getattr(spec, name) or MODERN_DEFAULTS[name]


def layer(spec: EncoderOptions, i: int) -> Layer:
    """Layer i of an encoder of the modern family: every n-th is global, the lowest among them."""
    if i % value(spec, "global_attn_every_n_layers"):
        return Layer(value(spec, "local_attention") // 2, value(spec, "local_rope_theta"))
    return Layer(None, value(spec, "global_rope_theta"))


def stack(spec: EncoderOptions, plain: LayerSpec, layers: int) -> tuple[LayerSpec, ...]:
    """The layers of an encoder of the modern family, from what they have in common."""
    return tuple(
        dataclasses.replace(
            plain,
            block="pre_norm",
            **layer(spec, i)._asdict(),
            mlp_dropout=spec.mlp_dropout,
            out_init_std=last_std(spec, layers),
            normed=i > 0,
        )
        for i in range(layers)
    )


def last_std(spec: EncoderOptions, layers: int) -> float:
    """The deviation of products that end a branch, and of heads.

    init_std / sqrt(2 layers), so that the stream does not grow with the depth: "out" of `_init_weights` in
    transformers' modeling_modernbert.py, Megatron's scheme (arXiv:1909.08053).
    """
    return spec.init_std / math.sqrt(2 * layers)


def check(spec: EncoderOptions) -> None:
    """Raises UserError for options of the other family, and for those of its own that do not go together.

    `spec` has a known family and layers, width, heads and positions within their ranges.
    """
    if spec.family == ELECTRA:
        wrong = [name for name, none in MODERN_ONLY.items() if getattr(spec, name) != none]
        if wrong:
            raise UserError(
                f"{_named(spec, wrong)}: not options of model.family=electra; leave them out, or set "
                "model.family=modern"
            )
        return
    wrong = [name for name, none in ELECTRA_ONLY.items() if getattr(spec, name) != none]
    if wrong:
        use = ", ".join(f"model.{name}={ELECTRA_ONLY[name]:g}" for name in wrong)
        raise UserError(
            f"{_named(spec, wrong)}: not options of model.family=modern, which has no table of types and drops by "
            f"model.embedding_dropout, mlp_dropout and attention_dropout; set {use}"
        )
    if spec.embedding != spec.width:
        raise UserError(
            f"model.embedding={spec.embedding} is not model.width={spec.width}: model.family=modern has no projection "
            f"between them; set model.embedding={spec.width}"
        )
    _check_window(spec)
    _check_rotation(spec)


def _named(spec: EncoderOptions, names: list[str]) -> str:
    return ", ".join(f"model.{name}={getattr(spec, name)}" for name in names)


def _check_window(spec: EncoderOptions) -> None:
    window, every = spec.local_attention, value(spec, "global_attn_every_n_layers")
    if window < 0 or window % 2:
        raise UserError(
            f"model.local_attention={window} must be an even number of tokens: half of it on each side of a token"
        )
    if every < 0:
        raise UserError(f"model.global_attn_every_n_layers={every} must be at least 1")
    if window > spec.positions and every > 1:
        raise UserError(
            f"model.local_attention={window} is wider than the longest row, model.positions={spec.positions}; choose "
            "a narrower one, or model.global_attn_every_n_layers=1 for layers that all see the whole row"
        )


def _check_rotation(spec: EncoderOptions) -> None:
    channels = spec.width // spec.heads
    if channels % 2:
        raise UserError(
            f"model.width={spec.width} / heads={spec.heads} = {channels} channels a head: rotary positions turn them "
            "in pairs; choose an even number"
        )
    for window, base in {layer(spec, i) for i in range(spec.layers)}:
        name = "global_rope_theta" if window is None else "local_rope_theta"
        if base <= 1:
            raise UserError(f"model.{name}={base:g} must be above 1")
        reach = spec.positions - 1 if window is None else min(window, spec.positions - 1)
        if reach > farthest(base, channels):
            raise UserError(
                f"model.positions={spec.positions}: a layer that sees {reach:,} tokens far is beyond what rotary "
                f"positions of model.{name}={base:g} tell apart with {channels} channels a head, "
                f"{farthest(base, channels):,}; choose shorter rows or a larger base"
            )


def farthest(base: float, channels: int) -> int:
    """The longest distance over which the slowest pair of channels turns by half a turn at most.

    Pair a turns by base^(-2 a / C) a token. Within half a turn of the slowest its cosine falls with the distance, so
    that no two distances look alike to all pairs; beyond, a far token begins to look like a near one.
    """
    return int(math.pi * base ** ((channels - 2) / channels))
