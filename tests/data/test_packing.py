"""Packed rows: nothing lost, and every document computed as if it were alone."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data import packing, source
from electra_jax.data.prepare import build
from electra_jax.model.electra import Dimensions, Electra
from electra_jax.model.tokens import Tokens
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

LENGTH, PAD = 16, 9


def rows(sizes: list[int]) -> np.ndarray:
    """Rows [R, 4, L] of these sizes, every token another number."""
    out = np.zeros((len(sizes), 4, LENGTH), np.int32)
    out[:, 0] = PAD
    for r, size in enumerate(sizes):
        out[r, 0, :size] = 100 + r * LENGTH + np.arange(size)
        out[r, 1, size // 2 : size] = 1
        out[r, 2, :size] = 1
        out[r, 3, :size:2] = 1
    return out


def documents(rows_RxFxL: np.ndarray) -> list[tuple]:
    """(ids, types, word starts, positions) of every document, in the order of their first id."""
    found = []
    at_RxL = packing.positions(rows_RxFxL[:, 2])
    for row, at_L in zip(rows_RxFxL, at_RxL, strict=True):
        for number in range(1, row[2].max() + 1):
            here = row[2] == number
            found.append(tuple(tuple(x[here].tolist()) for x in (row[0], row[1], row[3], at_L)))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, LENGTH), max_size=40))
def test_every_document_is_somewhere_whole_and_once(sizes):
    """Catches a document lost, cut, written over another or out of order, padding that is no padding,
    and positions that do not begin again."""
    packed = packing.pack(rows(sizes), PAD)
    assert documents(packed) == documents(rows(sizes))
    for row in packed:
        held = int((row[2] > 0).sum())
        assert (row[2, :held] > 0).all() and (row[0, held:] == PAD).all()
        assert (row[1, held:] == 0).all() and (row[3, held:] == 0).all()
        assert (np.diff(row[2, :held]) >= 0).all()
    # No two rows could have been one.
    held = sorted((packed[:, 2] > 0).sum(1))
    assert len(held) < 2 or held[0] + held[1] > LENGTH


@pytest.mark.slow
def test_a_packed_document_is_computed_as_if_alone():
    """Catches a document that sees its neighbour, or stands at other positions than alone: logits of
    both networks and hidden states are the same."""
    sizes = [5, 9, 2, 16]
    apart = rows(sizes)
    apart[:, 0] %= 1000
    packed = packing.pack(apart, 0)
    model = run_spec(load_config("tiny").to_dict()).model
    electra = Electra(Dimensions(model, 1000))
    params = electra.init(jax.random.key(0))

    @jax.jit
    def run(tokens):
        chosen = np.broadcast_to(np.arange(LENGTH), tokens.ids.shape)
        logits = electra.apply(params, tokens, method=Electra.discriminate)
        hidden, _, _ = electra.apply(params, tokens, chosen, method=Electra.generate)
        return logits, hidden

    def outputs(x: np.ndarray) -> dict[int, list[np.ndarray]]:
        found = run(Tokens(x[:, 0], x[:, 1], x[:, 2], packing.positions(x[:, 2])))
        by_document = {}
        for r, row in enumerate(x):
            for number in range(1, row[2].max() + 1):
                here = row[2] == number
                by_document[int(row[0][here][0])] = [np.asarray(y)[r][here] for y in found]
        return by_document

    # As many rows, so that the same program computes both.
    filled = np.concatenate(
        [packed, np.zeros((len(apart) - len(packed), *apart.shape[1:]), np.int32)]
    )
    together, alone = outputs(filled), outputs(apart)
    assert together.keys() == alone.keys() and len(packed) < len(apart)
    for first, values in alone.items():
        for a, b in zip(values, together[first], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6, rtol=0)


def test_prepare_packs(corpus, vocab, tmp_path):
    """Catches counts of other rows than those written, and positions that are not read back."""
    common = {"valid_fraction": 0.2, "workers": 1}
    build.prepare(corpus, vocab, 64, tmp_path / "packed", pack=True, **common)
    build.prepare(corpus, vocab, 64, tmp_path / "plain", **common)
    packed, plain = (source.open_prepared(tmp_path / name) for name in ("packed", "plain"))
    for split in ("train", "valid"):
        found, expected = packed.info["counts"][split], plain.info["counts"][split]
        assert found["packed_rows"] == expected["rows"] > found["rows"] == packed.rows[split]
        assert found["real_tokens"] == expected["real_tokens"]
        share = found["real_tokens"] / (found["rows"] * 64)
        assert found["real_token_share"] == pytest.approx(share, abs=1e-6)
        assert found["single_segment_share"] == expected["single_segment_share"]
        read = packed.source(split).rows(np.arange(packed.rows[split]))
        assert (read["docs"] > 0).sum() == found["real_tokens"] and read["docs"].max() > 1
        assert (read["positions"][read["ids"] == packed.special.cls] == 0).all()
