"""The devices that the program being traced will run on, and what it does without on them."""

import functools
import sys

import jax
from tqdm import tqdm


def platform() -> str | None:
    """That of the mesh in `jax.sharding.use_abstract_mesh`, such as "tpu"; None where the program names none."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.platform


@functools.cache
def tell(line: str) -> None:
    """Writes the line to stderr once a process, above a progress bar if one is shown."""
    tqdm.write(line, file=sys.stderr)
