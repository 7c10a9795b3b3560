"""One Tokenizer over all kinds: what goes in, what comes out, what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from electra_jax.spec import UserError
from electra_jax.text import tokenizer, vocab
from electra_jax.text.special import SpecialIds

ENTRIES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "##b",
    "mask",
    "[",
    "]",
    "\u00e9",
    "e",
]


def write_vocab(path: Path, entries: list[str] = ENTRIES) -> Path:
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return path


def test_encodes_and_names(trained):
    """Catches ids, tokens and special ids that do not belong together."""
    folder, loaded = trained
    assert loaded.kind == folder.name
    assert loaded.size == 200 and loaded.special == SpecialIds(0, 1, 2, 3, 4)
    text = "the quick brown fox, 81!"
    ids = loaded.encode(text)
    assert loaded.encode_batch([text, "", text]) == [ids, [], ids]
    flat, lengths = loaded.encode_flat([text, "", text])
    assert (flat.dtype, lengths.dtype) == (np.int32, np.int64)
    assert flat.tolist() == ids * 2 and lengths.tolist() == [len(ids), 0, len(ids)]
    assert [loaded.id_of(token) for token in loaded.tokens(ids)] == ids
    assert loaded.decode([2, *ids, 3, 0]).replace(" ", "") == text.replace(" ", "").replace(
        "!", "[UNK]"
    )
    with pytest.raises(KeyError):
        loaded.id_of("no such token")
    again = pickle.loads(pickle.dumps(loaded))
    assert again.encode(text) == ids and again.hash == loaded.hash


def test_word_starts(trained):
    """Catches whole words cut in two, or run together, for whole-word masking."""
    _, loaded = trained
    ids = loaded.encode("woodchuck chuck 98765 shells")
    starts = loaded.starts_V[ids]
    assert starts.dtype == bool and starts.sum() == 4 and starts[0] and len(ids) > 4
    assert loaded.starts_V[list(loaded.special)].all() and loaded.starts_V.shape == (200,)


def test_text_never_spells_a_special_token(trained):
    """Catches a literal "[MASK]" or "[SEP]" in a corpus that becomes the special id."""
    _, loaded = trained
    text = "a [MASK] b[SEP]c [CLS] [PAD] [UNK] \uff3b\uff2d\uff21\uff33\uff2b\uff3d <mask> </s>"
    special = {loaded.special.pad, loaded.special.cls, loaded.special.sep, loaded.special.mask}
    assert not special & set(loaded.encode(text))
    assert not special & set(loaded.encode_flat([text])[0].tolist())


@pytest.mark.parametrize("kind", vocab.KINDS)
def test_cased_text_never_spells_a_special_token(small_corpus, tmp_path, kind):
    """Catches the same where case is kept, and "[MASK]" is an entry that text could match."""
    vocab.train([str(small_corpus)], kind, 200, tmp_path / "tok", lowercase=False)
    loaded = tokenizer.load(tmp_path / "tok")
    special = set(loaded.special) - {loaded.special.unk}
    for text in ("a [MASK] b[SEP]c", "[CLS][PAD]", "\uff3bMASK]"):
        assert not special & set(loaded.encode(text))
        assert not special & set(loaded.encode_flat([text])[0].tolist())


def test_saved_folder_says_it_all(trained, tmp_path):
    """Catches options or scores lost, or rounded, on the way through the folder."""
    _, loaded = trained
    loaded.save(tmp_path / "copy", max_length=128)
    again = tokenizer.load(tmp_path / "copy")
    text = "the SEA shells é 7"
    assert again.hash == loaded.hash and again.encode(text) == loaded.encode(text)
    assert again.kind == loaded.kind and again.special == loaded.special
    assert tokenizer.load(tmp_path / "copy" / "tokenizer.json").hash == loaded.hash
    config = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 128


def test_case_and_accents(tmp_path):
    """Catches a wrong default: a bare vocab.txt is uncased, and accents go when case goes."""
    path = write_vocab(tmp_path / "vocab.txt")
    for given, expected in {
        (None, None): (True, True),
        (True, None): (True, True),
        (False, None): (False, False),
        (None, False): (True, False),
        (False, True): (False, True),
    }.items():
        loaded = tokenizer.load(path, *given)
        assert (loaded.lowercase, loaded.strip_accents) == expected, given
        loaded.save(tmp_path / "saved")
        again = tokenizer.load(tmp_path / "saved")
        assert (again.lowercase, again.strip_accents) == expected, given
        assert again.hash == loaded.hash
        other = tokenizer.load(tmp_path / "saved", False)
        assert (other.lowercase, other.strip_accents) == (False, False)
    assert tokenizer.load(path).tokens(tokenizer.load(path).encode("AB \u00e9")) == [
        "a",
        "##b",
        "e",
    ]


def test_hash_depends_on_rules_and_entries(tmp_path):
    """Catches data prepared with another tokenizer that passes for the same."""
    path = write_vocab(tmp_path / "a.txt")
    swapped = [*ENTRIES[:5], "##b", "a", *ENTRIES[7:]]
    hashes = {
        tokenizer.load(path).hash,
        tokenizer.load(path, lowercase=False).hash,
        tokenizer.load(path, strip_accents=False).hash,
        tokenizer.load(write_vocab(tmp_path / "b.txt", swapped)).hash,
        tokenizer.load(write_vocab(tmp_path / "c.txt", [*ENTRIES, "z"])).hash,
    }
    assert len(hashes) == 5


def test_hash_is_the_same_everywhere(tmp_path):
    """Catches a hash over what changes by machine, library version or dict order."""
    found = tokenizer.load(write_vocab(tmp_path / "vocab.txt")).hash
    assert found == "d78b8d6e206ede8c9bde11eff512a6d664c01164f071c8e1d3b7251f5719028b"


def test_long_words_are_unknown(tmp_path):
    """Catches the original's limit of 200 characters: the library and transformers have 100."""
    loaded = tokenizer.load(write_vocab(tmp_path / "vocab.txt"))
    assert loaded.encode("a" + "b" * 99) == [5] + [6] * 99
    assert loaded.encode("a" + "b" * 100) == [1]


def test_sentencepiece_keeps_its_own_rules(trained, tmp_path):
    """Catches a flag that is silently ignored because the rules are inside the model."""
    folder, loaded = trained
    if loaded.kind == "wordpiece":
        assert not tokenizer.load(folder, lowercase=False).lowercase
        return
    assert tokenizer.load(folder / "spiece.model").hash == loaded.hash
    assert tokenizer.load(folder, lowercase=True, strip_accents=False).hash == loaded.hash
    with pytest.raises(UserError, match="own rules say lowercase=True; lowercase=False was asked"):
        tokenizer.load(folder, lowercase=False)
    with pytest.raises(UserError, match="strip_accents=True was asked for"):
        tokenizer.load(folder / "spiece.model", strip_accents=True)


def test_refuses_bad_vocabularies(tmp_path):
    """Catches vocabularies whose ids would be shifted, doubled or missing."""
    path = tmp_path / "vocab.txt"

    def refused(entries: list[str], message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            tokenizer.load(write_vocab(path, entries))
        assert str(path) in str(error.value)

    refused(ENTRIES[2:], r"has no \[PAD\] .*, \[UNK\] .*; add it as a line")
    refused(["just", "some", "text"], r"has no \[PAD\]")
    path.write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(UserError, match=r"not UTF-8: byte 6 \(line 2\)"):
        tokenizer.load(path)
    path.write_bytes(b"\0" * 10)
    with pytest.raises(UserError, match="not text"):
        tokenizer.load(path)
    with pytest.raises(UserError, match="does not exist"):
        tokenizer.load(tmp_path / "none")


def test_special_tokens_may_be_anywhere(tmp_path):
    """Catches ids taken from the usual places instead of the file."""
    path = write_vocab(tmp_path / "vocab.txt", [*ENTRIES[5:], *reversed(ENTRIES[:5])])
    assert tokenizer.load(path).special == SpecialIds(11, 10, 9, 8, 7)
    aliases = write_vocab(path, ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "a"])
    assert tokenizer.load(aliases).special == SpecialIds(pad=2, unk=3, cls=0, sep=1, mask=4)


def test_refuses_folders_of_others(tmp_path):
    """Catches a byte-level BPE (RoBERTa, GPT-2), or no tokenizer at all, taken for ours."""
    with pytest.raises(UserError, match="is no tokenizer: it has neither"):
        tokenizer.load(tmp_path)
    path = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1}, "merges": []}
    path.write_text(json.dumps({"model": model, "pre_tokenizer": {"type": "ByteLevel"}}))
    with pytest.raises(UserError, match="is a byte-level BPE tokenizer; expected WordPiece"):
        tokenizer.load(tmp_path)
    path.write_text(json.dumps({"model": {"type": "WordLevel", "vocab": {}}}))
    with pytest.raises(UserError, match="is a WordLevel tokenizer"):
        tokenizer.load(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        tokenizer.load(tmp_path)
    path.write_text("{}")
    with pytest.raises(UserError, match="no model with a vocabulary"):
        tokenizer.load(tmp_path)
    path.unlink()
    (tmp_path / "spiece.model").write_bytes(b"x")
    with pytest.raises(UserError, match="nothing says how its ids are used; give the model itself"):
        tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        tokenizer.load(tmp_path / "spiece.model")
