"""Tokenizer folders of others: what the class in them means, and words added after training."""

import importlib
import json
import types
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers

from electra_jax.spec import UserError
from electra_jax.text import classes, spm_messages, tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROLES = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=False)
)
ENTRIES = [*SPECIAL, *"abeéABEÉ東京", "##b", "##B", "##京", "été", "Été", "ete"]
TEXTS = ["Été ete", "AB ab", "東京a", "É", "a new1 b", "foo bar xfoo bar  NEW1", "ab new1b"]
# Two classes have special tokens of their own, which their vocabularies hold.
BERT = [name for name in classes.BERT if name not in ("FunnelTokenizer", "MPNetTokenizer")]


def write(path: Path, files: dict[str, Any]) -> Path:
    """A folder with these files; JSON for what is not text."""
    path.mkdir()
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name).write_text(text, encoding="utf-8")
    return path


def definition(entries: list[str] = ENTRIES, **options: bool | None) -> tokenizers.Tokenizer:
    """BERT's tokenizer of the library."""
    model = tokenizers.models.WordPiece(
        {token: i for i, token in enumerate(entries)},
        unk_token="[UNK]",
        max_input_chars_per_word=100,
    )
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.BertNormalizer(**options)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


def agree(path: Path, saved: Path) -> tokenizer.Tokenizer:
    """Our tokenizer of a folder, after transformers gave the same ids for it, and for what we save."""
    from transformers import AutoTokenizer

    ours = tokenizer.load(path)
    expected = ours.encode_batch(TEXTS)
    ours.save(saved)
    for folder in (path, saved):
        theirs = AutoTokenizer.from_pretrained(str(folder))
        assert theirs(TEXTS, add_special_tokens=False)["input_ids"] == expected, folder
        named = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id)
        assert (*named, theirs.sep_token_id, theirs.mask_token_id) == tuple(ours.special)
        assert len(theirs) == ours.size
    assert tokenizer.load(saved).hash == ours.hash
    return ours


# tokenizer_config.json -> lower case and accents with a class of BERT's; tokenizer.json is cased.
@pytest.mark.parametrize(
    "said,expected",
    [
        ({}, (True, True)),
        ({"do_lower_case": False}, (False, False)),
        ({"strip_accents": False}, (True, False)),
        ({"do_lower_case": False, "strip_accents": True}, (False, True)),
    ],
)
def test_class_decides_between_two_files(tmp_path, said, expected):
    """Catches tokenizer.json followed where transformers' BERT classes follow tokenizer_config.json, and
    the other way round for PreTrainedTokenizerFast."""
    text = definition(lowercase=False).to_str()
    for name in ("ElectraTokenizerFast", "BertTokenizer", "PreTrainedTokenizerFast", None):
        files = {"tokenizer.json": text, "tokenizer_config.json": {"tokenizer_class": name, **said}}
        loaded = tokenizer.load(write(tmp_path / str(name), files))
        by_class = name is not None and name.startswith(("Electra", "Bert"))
        found = (loaded.lowercase, loaded.strip_accents)
        assert found == (expected if by_class else (False, False)), name
        other = tokenizer.load(tmp_path / str(name), lowercase=True)
        assert (other.lowercase, other.strip_accents) == (True, True)
    beside = {"tokenizer.json": text, "tokenizer_config.json": said}
    beside["config.json"] = {"model_type": "electra"}
    loaded = tokenizer.load(write(tmp_path / "beside", beside))
    assert (loaded.lowercase, loaded.strip_accents) == expected


@pytest.mark.torch
@pytest.mark.parametrize(
    "name", [*BERT, "BertTokenizerFast", *classes.AS_SAVED[:2], *classes.AS_SAVED[3:4]]
)
def test_transformers_agrees_on_classes(tmp_path, name):
    """Catches a class that we take for BERT and transformers does not, or the other way round."""
    rules = [{}, {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": True}]
    for number, said in enumerate(rules):
        files = {"tokenizer.json": definition(strip_accents=False).to_str()}
        files["tokenizer_config.json"] = {"tokenizer_class": name, **ROLES, **said}
        agree(write(tmp_path / f"{number}", files), tmp_path / f"{number}-saved")


def test_unknown_classes_are_refused_by_name(tmp_path):
    """Catches a tokenizer of another kind (jieba before WordPiece, code of its own) taken for plain BERT."""
    for number, files in enumerate(
        [
            {"tokenizer_config.json": {"tokenizer_class": "RoFormerTokenizerFast"}},
            {"config.json": {"tokenizer_class": "RoFormerTokenizerFast"}},
        ]
    ):
        folder = write(tmp_path / str(number), {"vocab.txt": "\n".join(ENTRIES), **files})
        with pytest.raises(
            UserError, match="is a RoFormerTokenizerFast.*known classes: Albert.*Electra"
        ):
            tokenizer.load(folder)
        folder = write(tmp_path / f"{number}j", {"tokenizer.json": definition().to_str(), **files})
        with pytest.raises(UserError, match="RoFormerTokenizerFast"):
            tokenizer.load(folder)
    files = {"tokenizer.json": definition().to_str()}
    files["tokenizer_config.json"] = {"tokenizer_class": "AlbertTokenizer"}
    with pytest.raises(UserError, match="is a WordPiece tokenizer, but the folder says .* Albert"):
        tokenizer.load(write(tmp_path / "albert", files))


ADDED: dict[str, list[tuple[str, bool]]] = {
    "words": [("new1", False), ("foo bar", False)],
    "mask": [("[MASK]", True)],
    "mask as a word": [("[MASK]", False)],
    "mask, then a word": [("[MASK]", True), ("new1", False)],
    "a word, mask, a word, another": [
        ("new1", False),
        ("[MASK]", True),
        ("foo bar", False),
        ("[ENT]", True),
    ],
}


def with_added(path: Path, added: list[tuple[str, bool]], name: str | None) -> Path:
    """A folder whose tokenizer.json got these words after training (word, special)."""
    late = {word for word, _ in added}
    made = definition([token for token in ENTRIES if token not in late])
    for word, special in added:
        (made.add_special_tokens if special else made.add_tokens)([word])
    files = {"tokenizer.json": made.to_str()}
    if name:
        files["tokenizer_config.json"] = {"tokenizer_class": name, **ROLES}
    return write(path, files)


@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED.keys())
def test_words_added_after_training(tmp_path, added):
    """Catches added words lost from ids, size or the folder we save, and a KeyError for a late [MASK]."""
    loaded = tokenizer.load(with_added(tmp_path / "a", added, None))
    base = len([token for token in ENTRIES if token not in dict(added)])
    assert loaded.size == base + len(added)
    for number, (word, special) in enumerate(added, base):
        assert loaded.id_of(word) == number
        if not special and word != "[MASK]":
            assert loaded.encode(f"a {word} b") == [loaded.id_of("a"), number, loaded.id_of("b")]
    assert loaded.special.mask not in loaded.encode("a [MASK] b")
    loaded.save(tmp_path / "b")
    again = tokenizer.load(tmp_path / "b")
    assert (again.hash, again.size) == (loaded.hash, loaded.size)
    assert again.encode_batch(TEXTS) == loaded.encode_batch(TEXTS)
    assert "[MASK]" not in loaded.decode([loaded.special.mask, loaded.id_of("a")])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED.keys())
def test_transformers_agrees_on_added_words(tmp_path, added, name):
    """Catches an export whose tokenizer has fewer rows than the model, or gives added words other ids."""
    agree(with_added(tmp_path / "a", added, name), tmp_path / "b")


def test_added_words_beside_a_vocabulary(tmp_path):
    """Catches `added_tokens.json` (transformers 2 to 4) and `added_tokens_decoder` that are not read."""
    vocab, size = "\n".join(ENTRIES), len(ENTRIES)
    files = {"vocab.txt": vocab, "added_tokens.json": {"foo bar": size + 1, "new1": size}}
    first = tokenizer.load(write(tmp_path / "a", files))
    assert first.size == size + 2 and first.encode("foo bar NEW1") == [size + 1, size]
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    decoder = {
        str(size + i): {"content": word, **flags, "special": False}
        for i, word in enumerate(("new1", "foo bar"))
    }
    files = {"vocab.txt": vocab, "tokenizer_config.json": {"added_tokens_decoder": decoder}}
    assert tokenizer.load(write(tmp_path / "b", files)).hash == first.hash
    files["added_tokens.json"] = {"foo bar": "seven"}
    del files["tokenizer_config.json"]
    with pytest.raises(
        UserError, match="added tokens of .* damaged .*'foo bar' has the id 'seven'"
    ):
        tokenizer.load(write(tmp_path / "c", files))
    files["added_tokens.json"] = {"foo bar": size + 5}
    with pytest.raises(
        UserError, match=rf"'foo bar' has the id {size + 5}, but .* would be {size}"
    ):
        tokenizer.load(write(tmp_path / "d", files))


# Line -> id where transformers' reading is not the obvious one.
ODD_LINES = [*SPECIAL, "a", "b ", "a", "", "c\t", "", "d\u3000", "", ""]
ODD_IDS = {"a": 7, "b": 6, "c": 9, "d": 11}


def test_vocabulary_is_read_as_transformers_reads_it(tmp_path):
    """Catches a trailing blank that makes a word unknown, and ids that move at a double or empty line."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(ODD_LINES) + "\n", encoding="utf-8")
    loaded = tokenizer.load(path)
    assert {word: loaded.encode(word) for word in ODD_IDS} == {w: [i] for w, i in ODD_IDS.items()}
    assert loaded.size == 12 and loaded.tokens([5, 7, 8]) == ["", "a", ""]
    loaded.save(tmp_path / "saved")
    again = tokenizer.load(tmp_path / "saved")
    assert again.hash == loaded.hash and again.encode("a b c d") == [7, 6, 9, 11]


@pytest.mark.torch
def test_transformers_agrees_on_odd_vocabularies(tmp_path):
    """Catches the same where transformers changes its reading."""
    from transformers import AutoTokenizer

    files = {
        "vocab.txt": "\n".join(ODD_LINES),
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"},
    }
    tokenizer.load(write(tmp_path / "a", files)).save(tmp_path / "b")
    for name in "ab":
        theirs = AutoTokenizer.from_pretrained(str(tmp_path / name))
        found = {word: theirs(word, add_special_tokens=False)["input_ids"] for word in ODD_IDS}
        assert found == {word: [number] for word, number in ODD_IDS.items()}


FAIRSEQ: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
ALBERT = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    "bos_piece": "[CLS]",
    "eos_piece": "[SEP]",
}
# Class -> how its models are trained, and the name of the file.
SLOW: dict[str, tuple[dict[str, Any], str]] = {
    "AlbertTokenizer": ({**ALBERT, "control_symbols": ["[MASK]"]}, "spiece.model"),
    "XLNetTokenizer": (
        {**FAIRSEQ, "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>"]},
        "spiece.model",
    ),
    "RemBertTokenizer": (
        {**ALBERT, "eos_id": 1, "unk_id": 2, "bos_id": 3, "control_symbols": ["[MASK]"]},
        "sentencepiece.model",
    ),
    "XLMRobertaTokenizer": (FAIRSEQ, "sentencepiece.bpe.model"),
    "CamembertTokenizer": (FAIRSEQ, "sentencepiece.bpe.model"),
    "DebertaV2Tokenizer": (
        {
            "pad_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "unk_id": 3,
            "unk_piece": "[UNK]",
            "pad_piece": "[PAD]",
            "bos_piece": "[CLS]",
            "eos_piece": "[SEP]",
        },
        "spm.model",
    ),
    "BarthezTokenizer": (
        {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "control_symbols": ["<mask>"]},
        "sentencepiece.bpe.model",
    ),
    "BigBirdTokenizer": (
        {
            "pad_id": 0,
            "eos_id": 1,
            "bos_id": 2,
            "unk_id": 3,
            "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
        },
        "spiece.model",
    ),
}


def slow(path: Path, name: str, said: dict[str, Any] | None = None) -> Path:
    """A folder of a class with a SentencePiece model and no tokenizer.json."""
    write(path, {"tokenizer_config.json": {"tokenizer_class": name, **(said or {})}})
    options, file = SLOW[name]
    words = ["the shells She sells", "new1 foo bar xfoo AB ab", "été Été ete ``É''", "東京 a"]
    with (path / file).open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([f"{text} {i}" for i in range(60) for text in words]),
            model_writer=model,
            vocab_size=70,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
    return path


@pytest.mark.parametrize("name", SLOW)
def test_folders_of_slow_tokenizers(tmp_path, name):
    """Catches a SentencePiece model whose ids are not the class's (fairseq's order, a [MASK] at the end)."""
    loaded = tokenizer.load(slow(tmp_path / "a", name))
    assert len(set(loaded.special)) == 5 and max(loaded.special) < loaded.size
    assert loaded.special.unk not in loaded.encode("the shells")
    if "control_symbols" not in SLOW[name][0]:
        assert loaded.special.mask == loaded.size - 1
    for text in ("a \u00a0b", "a\u3000b", "  a  b "):
        ids, _ = loaded.encode_flat([text])
        assert ids.tolist() == loaded.encode(text)


@pytest.mark.torch
@pytest.mark.parametrize(
    "said", [{}, {"do_lower_case": True, "keep_accents": True, "split_by_punct": True}]
)
@pytest.mark.parametrize("name", SLOW)
def test_transformers_agrees_on_slow_tokenizers(tmp_path, name, said, monkeypatch):
    """Catches rules of a class that changed: from the model alone, and from the tokenizer.json made of it."""
    from transformers import AutoTokenizer

    # Of this name the package has a module and, once something loaded it, a function.
    convert_slow_tokenizer = importlib.import_module("transformers.convert_slow_tokenizer")
    # Their own classes load only with the newest protobuf.
    proto = types.SimpleNamespace(ModelProto=spm_messages.model_class())
    monkeypatch.setattr(convert_slow_tokenizer, "import_protobuf", lambda *_: proto)
    monkeypatch.setitem(globals(), "TEXTS", [*TEXTS, "a \u00a0b", "a\u3000b", " ``a''  b ", "a\tb"])
    first = agree(slow(tmp_path / "a", name, said), tmp_path / "b")
    AutoTokenizer.from_pretrained(str(tmp_path / "a")).save_pretrained(tmp_path / "c")
    second = agree(tmp_path / "c", tmp_path / "d")
    assert second.encode_batch(TEXTS) == first.encode_batch(TEXTS)


def test_what_to_give_instead(tmp_path):
    """Catches advice that leads to the next refusal."""
    folder = slow(tmp_path / "a", "AlbertTokenizer")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match=r"give the model itself: .*spiece\.model") as error:
        tokenizer.load(folder)
    assert tokenizer.load(str(error.value).rpartition(": ")[2]).size > 5
    for suffix in (".sp", ".spm"):
        model = (tmp_path / f"b{suffix}" / "tokenizer").with_suffix(suffix)
        model.parent.mkdir()
        model.write_bytes((folder / "spiece.model").read_bytes())
        with pytest.raises(UserError, match=rf"give the model itself: .*tokenizer\{suffix}$"):
            tokenizer.load(model.parent)
        assert tokenizer.load(model).hash == tokenizer.load(folder / "spiece.model").hash
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MBartTokenizer"}')
    with pytest.raises(UserError, match="is a MBartTokenizer.*save_pretrained"):
        tokenizer.load(folder)
    (folder / "spiece.vocab").write_text("<unk>\t0\n")
    with pytest.raises(UserError, match=r"without its rules; give the model: .*spiece\.model$"):
        tokenizer.load(folder / "spiece.vocab")
