"""What is held out: a share of the text whatever the documents' lengths, the same on every machine."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_jax.data.prepare import heldout
from electra_jax.spec import UserError


def text(size: int, seed: int) -> list[str]:
    """A document of about so many bytes, in paragraphs of some hundreds."""
    draw = random.Random(seed)
    lines: list[str] = []
    while size > 0:
        lines.append(f"{seed} {len(lines)} " + "x" * min(size, draw.randrange(100, 900)))
        size -= len(lines[-1])
    return lines


def size(documents) -> int:
    return sum(len(line) for document in documents for line in document)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lengths", [[200_000] * 50, [3000] * 3000, [400_000] + [300] * 30_000])
def test_the_share_is_reached(lengths, seed):
    """Catches a held-out split whose size is an accident of where the long documents lie."""
    documents = [text(n, number) for number, n in enumerate(lengths)]
    pieces = list(heldout.HeldOut(seed, 0.01).pieces(0, enumerate(documents)))
    share = size(p.document for p in pieces if p.held_out) / size(documents)
    assert 0.0075 < share < 0.0125
    assert all(p.part == 0 for p in pieces if len(documents[p.number]) < 20)  # short: never cut


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=12), st.integers(0, 99))
def test_the_text_stays_whole_and_in_order(lengths, seed):
    """Catches text lost, doubled or moved where documents are cut, and parts that should be one."""
    documents = [text(n, number) for number, n in enumerate(lengths)]
    pieces = list(heldout.HeldOut(seed, 0.3).pieces(0, enumerate(documents)))
    joined: dict[int, list[str]] = {}
    for piece in pieces:
        joined.setdefault(piece.number, []).extend(piece.document)
    assert list(joined) == list(range(len(documents)))
    assert list(joined.values()) == documents
    for before, after in itertools.pairwise(pieces):
        if before.number == after.number:
            assert (after.part, after.held_out) == (before.part + 1, not before.held_out)


def test_inputs_of_one_document_have_their_share():
    """Catches every small file, or none, giving its document to the held-out split."""
    documents = [text(2000, number) for number in range(1000)]
    held = [
        any(p.held_out for p in heldout.HeldOut(1, 0.05).pieces(file, iter([(0, document)])))
        for file, document in enumerate(documents)
    ]
    assert 45 <= sum(held) <= 55
    assert any(held[:30])


def rule(inputs: list[list[list[str]]], fraction: float = 0.01) -> heldout.HeldOut:
    return heldout.rule(3, fraction, 0, len(inputs), lambda file: enumerate(inputs[file]))


def test_something_is_held_out():
    """Catches an empty held-out split of a corpus smaller than the share of one document."""
    for inputs in ([[["a"], ["b"]]], [[["a"]], [["b"]], [["c"]]], [[text(20_000, 1)]]):
        found = rule(inputs)
        pieces = [p for file, of in enumerate(inputs) for p in found.pieces(file, enumerate(of))]
        assert sum(p.held_out for p in pieces) == 1
        assert sum(not p.held_out for p in pieces) >= 1
    with pytest.raises(UserError, match="a single document"):
        rule([[text(9000, 1)]])


def test_sections_grow_with_the_corpus():
    """Catches books cut in a corpus so large that whole ones make the share."""
    inputs = [[text(30_000, number) for number in range(40)]]
    found = heldout.rule(0, 0.1, 20_000_000, 1, lambda file: enumerate(inputs[file]))
    assert found.section == 31_250
    assert all(p.part == 0 for p in found.pieces(0, enumerate(inputs[0])))
