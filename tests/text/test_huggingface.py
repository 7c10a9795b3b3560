"""transformers reads our folders, and we read theirs, with the same ids."""

import json
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    ElectraTokenizerFast,
    PreTrainedTokenizerFast,
)

from electra_jax.spec import UserError
from electra_jax.text import tokenizer, vocab
from electra_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.torch

LANGUAGES = {"english": "uncased", "german": "cased", "korean": "korean", "chinese": "chinese"}
OPTIONS = [(True, None), (True, False), (False, None), (False, True)]


def theirs(path: Path):
    return AutoTokenizer.from_pretrained(str(path))


def ids_of(hf, texts: list[str]) -> list[list[int]]:
    return hf(texts, add_special_tokens=False)["input_ids"]


def same_interface(ours: Tokenizer, hf) -> None:
    """Special tokens, template, types and size."""
    pad, unk, cls, sep, mask = ours.special
    found = (hf.pad_token_id, hf.unk_token_id, hf.cls_token_id, hf.sep_token_id, hf.mask_token_id)
    assert found == (pad, unk, cls, sep, mask)
    assert len(hf) == ours.size
    a, b = ours.encode("the shells"), ours.encode("a fox")
    pair = hf("the shells", "a fox")
    assert pair["input_ids"] == [cls, *a, sep, *b, sep]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert hf("a fox")["input_ids"] == [cls, *b, sep]


def slow_but(first: int, cases: list) -> list:
    """The first cases run with the fast set, the others with the slow one."""
    rest = [pytest.param(*case, marks=pytest.mark.slow) for case in cases[first:]]
    return [*cases[:first], *rest]


@pytest.mark.parametrize(
    "corpus,lowercase,strip",
    slow_but(1, [(name, *options) for options in OPTIONS for name in LANGUAGES]),
)
def test_wordpiece_ids(vocabularies, paragraphs, tmp_path, corpus, lowercase, strip):
    """Catches any difference from BERT's fast tokenizer: case, accents, ideographs, punctuation."""
    path = vocabularies[LANGUAGES[corpus]]
    ours = tokenizer.load(path, lowercase, strip)
    texts = paragraphs(corpus, 400)
    expected = ours.encode_batch(texts)
    entries = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for family in (BertTokenizerFast, ElectraTokenizerFast):
        hf = family(
            vocab={token: i for i, token in enumerate(entries)},
            do_lower_case=lowercase,
            strip_accents=strip,
        )
        assert len(hf) == len(entries)  # `vocab_file=` would silently give five entries
        assert ids_of(hf, texts) == expected
    ours.save(tmp_path)
    saved = theirs(tmp_path)
    assert ids_of(saved, texts) == expected
    same_interface(ours, saved)


def test_wordpiece_rules(tmp_path, paragraphs):
    """Catches case and accents treated otherwise in any of the languages (a small vocabulary of
    their characters, so that it is quick)."""
    texts = [text for corpus in LANGUAGES for text in paragraphs(corpus, 20)]
    characters = sorted({c for text in texts for c in text + text.lower() if not c.isspace()})
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    entries += [f"##{c}" for c in characters]
    (tmp_path / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    for lowercase, strip in OPTIONS:
        ours = tokenizer.load(tmp_path / "vocab.txt", lowercase, strip)
        vocabulary = {token: i for i, token in enumerate(entries)}
        hf = BertTokenizerFast(vocab=vocabulary, do_lower_case=lowercase, strip_accents=strip)
        assert ids_of(hf, texts) == ours.encode_batch(texts)
        ours.save(tmp_path / "saved")
        assert ids_of(theirs(tmp_path / "saved"), texts) == ours.encode_batch(texts)


def test_trained_folders(trained, paragraphs):
    """Catches a folder of ours that transformers reads with other ids, in any language."""
    folder, ours = trained
    hf = theirs(folder)
    same_interface(ours, hf)
    for corpus in LANGUAGES:
        texts = paragraphs(corpus, 200)
        assert ids_of(hf, texts) == ours.encode_batch(texts), corpus


def test_beside_a_model(trained, tmp_path):
    """Catches transformers choosing BERT's tokenizer for a SentencePiece folder because the model
    beside it is an ELECTRA."""
    _, ours = trained
    ours.save(tmp_path, max_length=128)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra"}))
    hf = theirs(tmp_path)
    same_interface(ours, hf)
    text = "She sells sea shells, 98765!"
    assert ids_of(hf, [text]) == [ours.encode(text)]
    assert hf.model_max_length == 128


def test_what_transformers_saves(trained, tmp_path):
    """Catches a folder that went through save_pretrained and comes back as another tokenizer."""
    folder, ours = trained
    theirs(folder).save_pretrained(tmp_path)
    again = tokenizer.load(tmp_path)
    text = "She sells sea shells, 98765! \u00e9"
    assert again.encode(text) == ours.encode(text)
    assert (again.special, again.size, again.kind) == (ours.special, ours.size, ours.kind)
    assert (again.lowercase, again.strip_accents) == (ours.lowercase, ours.strip_accents)


@pytest.mark.parametrize(
    "files,lowercase,strip",
    slow_but(
        2, [(files, *options) for options in OPTIONS for files in ("both", "vocab.txt", "json")]
    ),
)
def test_folders_of_others(vocabularies, paragraphs, tmp_path, files, lowercase, strip):
    """Catches options of a Hugging Face folder that are not honoured."""
    entries = vocabularies["cased"].read_text(encoding="utf-8").rstrip("\n").split("\n")
    hf = BertTokenizerFast(
        vocab={token: i for i, token in enumerate(entries)},
        do_lower_case=lowercase,
        strip_accents=strip,
    )
    hf.save_pretrained(tmp_path)
    if files != "json":
        (tmp_path / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    if files == "vocab.txt":
        (tmp_path / "tokenizer.json").unlink()
    texts = paragraphs("german", 100)
    assert tokenizer.load(tmp_path).encode_batch(texts) == ids_of(hf, texts)


def test_literal_special_tokens(trained):
    """States the one difference: transformers maps the names of special tokens in raw text."""
    folder, ours = trained
    hf = theirs(folder)
    assert ours.special.mask in ids_of(hf, ["a [MASK] b"])[0]
    assert ours.special.mask not in ours.encode("a [MASK] b")


@pytest.mark.parametrize(
    "kind,lowercase,accents",
    slow_but(
        2,
        [
            (kind, lowercase, accents)
            for accents in ("keep", "bert", "strip")
            for lowercase in (True, False)
            for kind in ("unigram", "bpe")
        ],
    ),
)
def test_sentencepiece_library(real, paragraphs, tmp_path, kind, lowercase, accents):
    """Catches a conversion that is not the model: ids of the library itself in four languages,
    on a vocabulary that knows all of them."""
    corpus = tmp_path / "corpus.txt"
    texts = [text for name in LANGUAGES for text in paragraphs(name, 60)]
    corpus.write_text("\n".join(texts), encoding="utf-8")
    size = 4000 if real else 1200  # written text has fewer words
    vocab.train([str(corpus)], kind, size, tmp_path / "tok", lowercase, accents)
    ours = tokenizer.load(tmp_path / "tok")
    assert ours.lowercase == lowercase
    assert ours.strip_accents == (accents != "keep")
    library = sentencepiece.SentencePieceProcessor(str(tmp_path / "tok" / "spiece.model"))
    hf = theirs(tmp_path / "tok")
    for name in LANGUAGES:
        texts = paragraphs(name, 300)
        found = ours.encode_batch(texts)
        assert found == library.encode(texts), name
        assert found == ids_of(hf, texts), name


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_accents_in_two_characters(small_corpus, tmp_path, kind):
    """Catches the shortest rule taken for a letter and its accent (E + acute to e, not to e with
    acute), as `tokenizers` does on its own."""
    vocab.train([str(small_corpus)], kind, 280, tmp_path / "tok", True, "keep")
    ours = tokenizer.load(tmp_path / "tok")
    library = sentencepiece.SentencePieceProcessor(str(tmp_path / "tok" / "spiece.model"))
    composed = "Größe und Maß, ÄPFEL und Öl: naïve CAFÉ résumé"
    apart = unicodedata.normalize("NFD", composed)
    assert apart != composed
    assert ours.encode(apart) == library.encode(apart) == ours.encode(composed)


def foreign(tmp_path: Path, small_corpus: Path, **options) -> Path:
    sentencepiece.SentencePieceTrainer.train(
        input=str(small_corpus),
        model_prefix=str(tmp_path / "m"),
        vocab_size=200,
        minloglevel=2,
        **options,
    )
    return tmp_path / "m.model"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_models_of_others(small_corpus, tmp_path, kind):
    """Catches special tokens under other names and at other places than ours."""
    names = {"pad_id": 3, "control_symbols": ["<mask>"], "user_defined_symbols": ["<cls>", "[x]"]}
    path = foreign(tmp_path, small_corpus, model_type=kind, **names)
    ours = tokenizer.load(path)
    library = sentencepiece.SentencePieceProcessor(str(path))
    text = "She  sells sea shells \uff21\uff22 by the seaside, 98765!"
    assert ours.encode(text) == library.encode(text)
    assert ours.tokens(ours.special) == ["<pad>", "<unk>", "<cls>", "</s>", "<mask>"]
    assert (ours.lowercase, ours.strip_accents) == (False, False)
    ours.save(tmp_path / "saved")
    same_interface(ours, theirs(tmp_path / "saved"))
    assert (tmp_path / "saved" / "spiece.model").read_bytes() == path.read_bytes()


def test_models_with_words_as_symbols(small_corpus, tmp_path):
    """Catches symbols that sentencepiece finds in text and transformers finds differently."""
    names = {"pad_id": 3, "control_symbols": ["[MASK]"], "user_defined_symbols": ["sea", "[x]"]}
    with pytest.raises(UserError, match=r"user-defined symbols .* \(sea\)"):
        tokenizer.load(foreign(tmp_path, small_corpus, **names))


def test_models_without_special_tokens(small_corpus, tmp_path):
    """Catches a model as `spm_train` makes it by default: no padding, no mask."""
    with pytest.raises(
        UserError, match=r"has no \[PAD\] \(or <pad>\), \[MASK\] .*--control_symbols"
    ):
        tokenizer.load(foreign(tmp_path, small_corpus))
    with pytest.raises(UserError, match=r"of type 3 \(word\); expected unigram, bpe or char"):
        tokenizer.load(foreign(tmp_path, small_corpus, model_type="word", hard_vocab_limit=False))


def test_a_fast_tokenizer_that_is_byte_level(tmp_path):
    """Catches GPT-2's byte-level BPE, as saved by transformers, taken for one with the roles that pretraining needs."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        ["some text"] * 3, vocab_size=300, special_tokens=["<s>", "</s>", "<pad>"]
    )
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no \[UNK\] \(or <unk>\), \[MASK\]"):
        tokenizer.load(tmp_path)
