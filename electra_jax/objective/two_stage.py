"""Two stages (Clark et al., 2020, section 3.2): a generator first, then a discriminator that begins with its weights.

The first stage is a run of objective `mlm`; this is the second, in which the generator stays as it is. Without the
generator's weights to begin with, the paper says, the discriminator may fail to learn at all.
"""

from dataclasses import dataclass
from dataclasses import replace as changed
from typing import ClassVar

from electra_jax.objective import frozen
from electra_jax.objective.protocol import Origin
from electra_jax.spec import UserError

RANGES = frozen.RANGES


@dataclass(frozen=True, kw_only=True)
class Options(frozen.Options):
    """The config section `objective` of the second stage."""

    temperature_first: float = 0.0  # at step 0; 0: temperature throughout


@dataclass(frozen=True)
class TwoStageObjective(frozen.FrozenObjective):
    """Detection beside a trained generator of the discriminator's size, whose weights both begin with."""

    name: ClassVar[str] = "two_stage"

    def __post_init__(self) -> None:
        super().__post_init__()
        large, small = self.dims.discriminator, self.dims.generator
        if large != small:
            wrong = "; ".join(
                f"{what} {one} and {other}"
                for what, one, other in (
                    ("width", small.width, large.width),
                    ("layers", small.layers, large.layers),
                    ("embedding", small.embedding, large.embedding),
                    ("heads", small.stack[0].heads, large.stack[0].heads),
                    ("ffn", small.stack[0].ffn, large.stack[0].ffn),
                )
                if one != other
            )
            raise UserError(
                f"objective.name={self.name}: the discriminator begins with the generator's weights, but they differ: "
                f"{wrong or 'layers of other kinds'}; set model.generator_size=1.0, model.generator_layers=1.0, and "
                "model.tying=gdes where the embeddings have another width than the model"
            )

    def origin(self) -> Origin:
        """The same, which becomes embeddings and encoder of the discriminator, too; the head of that is fresh."""
        discriminator, generator = exports(self.dims)
        return super().origin()._replace(takes=(generator, changed(discriminator, head="")))


exports, numbers, clashes = frozen.exports, frozen.numbers, frozen.clashes
make = TwoStageObjective
