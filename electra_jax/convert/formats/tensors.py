"""Tensors of a model that are read one at a time, when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from electra_jax.spec import UserError

MOST_TENSORS = 100_000  # of a model; a file that claims more is damaged or worse
MOST_ELEMENTS = 2**40  # of a tensor


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor that was not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def transposed(self) -> "Stored":
        """The same with its axes turned around."""
        return Stored(
            shape=self.shape[::-1],
            dtype=self.dtype,
            read=lambda: self.read().T,
        )


class Tensors(Mapping[str, np.ndarray]):
    """Name -> array; nothing is kept of what was read. Floats come as float32, whatever they were."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = dict(stored)

    def __getitem__(self, name: str) -> np.ndarray:
        stored = self._stored[name]
        value = stored.read()
        return value if stored.dtype.kind in "iub" else np.asarray(value, np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, without reading."""
        return {name: stored.shape for name, stored in self._stored.items()}

    def stored(self) -> dict[str, Stored]:
        """The tensors as they lie."""
        return dict(self._stored)


def shapes_of(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Name -> shape; of `Tensors` without reading them."""
    if isinstance(tensors, Tensors):
        return tensors.shapes()
    return {name: tuple(value.shape) for name, value in tensors.items()}


def check_shape(what: str, name: str, shape: tuple[int, ...]) -> int:
    """The number of elements of a shape that a file claims. UserError for one that no tensor has."""
    if len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
        raise UserError(f"{what}: tensor {name[:80]} claims the shape {str(shape)[:80]}")
    count = 1
    for n in shape:
        count *= n
        if count > MOST_ELEMENTS:
            raise UserError(
                f"{what}: tensor {name[:80]} claims more than {MOST_ELEMENTS:,} numbers"
            )
    return count
