"""How fast each parameter learns: layer-wise decay of the learning rate, and lower layers that do not learn."""

import dataclasses
import re
from collections.abc import Sequence

from electra_jax.learn.parts import Part

_LAST = "encoder/final_norm/"  # of pre-norm layers; it learns as the top layer does


def parts(
    whole: Part, *, layers: int, decay: float, off_by_one: bool, frozen: int
) -> Sequence[Part]:
    """The parameters by layer: one part that learns at `factor`, and one that is frozen where `frozen` is not 0.

    `frozen` layers from below do not learn, and with the first of them the embeddings; -1 freezes the embeddings alone.
    """

    def rate(name: str) -> float:
        return factor(name, layers=layers, decay=decay, off_by_one=off_by_one)

    learning = dataclasses.replace(whole, factor=rate)
    if not frozen:
        return (learning,)
    still = dataclasses.replace(
        whole, name="frozen", pattern=below(max(frozen, 0), layers), optim=None
    )
    return (still, learning)


def factor(name: str, *, layers: int, decay: float, off_by_one: bool) -> float:
    """The factor of the learning rate of the parameter of this path.

    As published: 1 for the heads, decay^1 for the top layer, decay^layers for the lowest and
    decay^(layers + 1) for embeddings and projection. `off_by_one` is the released code
    (optimization.py:181-193), in which everything under the heads has one more decay.
    """
    depth = layers if name.startswith(_LAST) else depth_of(name)
    return 1.0 if depth is None else decay ** (layers + 1 - depth + off_by_one)


def depth_of(name: str) -> int | None:
    """0 for embeddings and projection, i + 1 for encoder layer i, None for a head."""
    if name.startswith("heads_"):
        return None
    layer = re.match(r"encoder/layer_(\d+)/", name)
    return int(layer[1]) + 1 if layer else 0


def below(layers: int, of: int) -> str:
    """The pattern of the paths of embeddings, projection and the first `layers` of the encoder's layers."""
    first = "|".join(f"layer_{i}" for i in range(layers))
    above = "layer_" if layers >= of else "layer_|final_norm/"
    return rf"^(embeddings/|encoder/(?!{above}){f'|encoder/({first})/' if first else ''})"
