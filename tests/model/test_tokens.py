"""The tokens of a batch as one value."""

import numpy as np

from electra_jax.model.tokens import Tokens


def test_the_tokens_of_a_batch():
    """Catches arrays that change places: all four have one type and one shape, so nothing else would notice."""
    batch = {
        name: np.full((2, 3), i) for i, name in enumerate(("docs", "positions", "ids", "types"))
    }
    tokens = Tokens.of(batch | {"word_starts": np.zeros((2, 3))})
    assert [int(x[0, 0]) for x in (tokens.ids, tokens.types, tokens.docs, tokens.positions)] == [
        2,
        3,
        0,
        1,
    ]


def test_a_batch_without_positions_counts_them():
    """Catches positions that a batch of one text a row is thought to have, or that do not begin at 0."""
    ids = np.full((2, 4), 7, np.int32)
    tokens = Tokens.of({"ids": ids, "types": ids, "docs": ids})
    assert np.array_equal(tokens.positions, [[0, 1, 2, 3]] * 2)
    assert tokens.positions.dtype == np.int32
