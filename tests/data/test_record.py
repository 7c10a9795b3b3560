"""The bytes of a record: ours to write and read, TFDS's by its own account."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from electra_jax.data import record


@pytest.mark.parametrize("seq_len", [8, 16, 128, 4096])
@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_records_are_what_tfds_would_write(seq_len, dtype):
    """Catches a size written with too few bytes: the lengths cross the borders of 7 and 14 bits."""
    dtype = np.dtype(dtype)
    rows = np.random.default_rng(0).integers(0, 60_000, (3, 4, seq_len)).astype(dtype)
    tensor = tfds.features.Tensor(shape=rows.shape[1:], dtype=dtype.type, encoding="bytes")
    features = tfds.features.FeaturesDict({record.FEATURE: tensor})
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    theirs = [
        serializer.serialize_example(features.encode_example({record.FEATURE: row})) for row in rows
    ]
    assert [r.tobytes() for r in record.encode(rows)] == theirs
    assert np.array_equal(record.decode(theirs, seq_len, dtype), rows)


def test_foreign_records_are_refused():
    """Catches rows of another length, or another feature, read as if they were ours."""
    dtype = np.dtype("<u2")
    good = record.encode(np.zeros((1, 4, 8), dtype))[0].tobytes()
    with pytest.raises(ValueError, match="bytes, expected"):
        record.decode([good, good + b"x"], 8, dtype)
    with pytest.raises(ValueError, match="header"):
        record.decode([good.replace(b"row", b"raw")], 8, dtype)


def test_small_vocabularies_take_two_bytes():
    """Catches ids that wrap round at 65,536."""
    assert record.dtype_for(65_536).itemsize == 2
    assert record.dtype_for(65_537).itemsize == 4
