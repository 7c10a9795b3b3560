"""What the GELU of a feed-forward block takes."""

from typing import NamedTuple

import jax


class Inputs(NamedTuple):
    """The arrays of `bias_gelu`."""

    h_BxLxF: jax.Array
    bias_F: jax.Array
