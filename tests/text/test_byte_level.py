"""Byte-level BPE as ModernBERT's folders have it: ids, words, and folders that come back."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from electra_jax.convert import grow
from electra_jax.data.words import Words
from electra_jax.spec import UserError
from electra_jax.text import tokenizer

ROLES = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
TEXTS = (
    "The cat sat on the mat, and the dog did not.",
    "  two blanks before,   three inside\tand a tab",
    "naïve café, e\u0301 and \u00e9; 漢字 한글 \U0001f642!",
    "a literal [MASK] and <|padding|> and |||EMAIL||| in the text",
    "don't you'll 1234 a_b",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as ModernBERT's: special tokens behind the vocabulary, ordinary ones among them."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|padding|>"],
        show_progress=False,
    )
    made.train_from_iterator([*TEXTS[:2]] * 5, trainer)
    made.add_tokens([tokenizers.AddedToken("   ", normalized=True), "|||EMAIL|||"])
    made.add_special_tokens([tokenizers.AddedToken(x, lstrip=x == "[MASK]") for x in ROLES])
    made.add_tokens(["[unused0]"])
    path = tmp_path_factory.mktemp("bytes")
    made.save(str(path / "tokenizer.json"))
    said = {f"{x[1:-1].lower()}_token": x for x in ROLES}
    said |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(said))
    return path


def test_ids_are_the_librarys(saved: Path) -> None:
    """Catches an added token that is not found, a special one that text may spell, and a blank that is lost."""
    ours = tokenizer.load(saved)
    library = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    for text in TEXTS:
        if "[MASK]" not in text:
            assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
            assert (
                ours.decode(ours.encode(text)).strip()
                == library.normalizer.normalize_str(text).strip()
            )
    assert not set(ours.encode(TEXTS[3])) & set(ours.special)
    assert ours.id_of("|||EMAIL|||") in ours.encode(TEXTS[3])
    flat, lengths = ours.encode_flat(TEXTS)
    assert flat.tolist() == [i for text in TEXTS for i in ours.encode(text)]
    assert lengths.sum() == len(flat)


def test_words_begin_at_blanks_and_at_the_first_token(saved: Path) -> None:
    """Catches masks of whole words that join a line's first word to the word before, or cut a word in two."""
    ours = tokenizer.load(saved)
    lines = ["the cat", "", "sat on"]
    ids = [ours.encode(line) for line in lines]
    flat = np.array([i for x in ids for i in x], np.int32)
    starts = Words(ours).starts(lines, np.array([len(x) for x in ids]), flat)
    words = "".join(
        ("|" if start else "") + token
        for start, token in zip(starts, ours.tokens(flat), strict=True)
    )
    assert words == "|the|\u0120cat|sat|\u0120on"


@pytest.mark.torch
def test_a_folder_comes_back(saved: Path, tmp_path: Path) -> None:
    """Catches a mask that keeps the blank before it in transformers' hands, and another vocabulary after saving."""
    transformers = pytest.importorskip("transformers")
    ours = tokenizer.load(saved)
    ours.save(tmp_path / "again", types=False)
    assert tokenizer.load(tmp_path / "again").hash == ours.hash
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    s = ours.special
    for text in (*TEXTS[:3], TEXTS[4]):
        assert theirs(text)["input_ids"] == [s.cls, *ours.encode(text), s.sep]
    masked = theirs("the [MASK] sat")["input_ids"]
    assert masked == [s.cls, *ours.encode("the"), s.mask, *ours.encode(" sat"), s.sep]


def test_others_are_refused(saved: Path, tmp_path: Path) -> None:
    """Catches RoBERTa's habit of a blank before the text, which would give other ids than here."""
    found = json.loads((saved / "tokenizer.json").read_text())
    found["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(
        UserError, match="is a byte-level BPE tokenizer; expected .*add_prefix_space=false"
    ):
        tokenizer.load(tmp_path)


def test_another_vocabulary_keeps_where_words_begin(saved: Path, tmp_path: Path) -> None:
    """Catches a word's row that begins as that of the same letters inside words, either way."""
    old = tokenizer.load(saved)
    entries = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##cat")
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n")
    new = tokenizer.load(tmp_path / "vocab.txt")
    found = grow.pieces(new, old)
    assert found[5:] == [old.encode(" cat"), old.encode("cat")]
    assert found[:5] == [
        [getattr(old.special, role)] for role in ("pad", "unk", "cls", "sep", "mask")
    ]
    back = grow.pieces(old, new)
    assert back[old.id_of("\u0120cat")] == [5]
