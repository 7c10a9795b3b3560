"""Rules of case and accents: no script loses its letters, and what is lost is said."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

from electra_jax.spec import UserError
from electra_jax.text import effect, lost, mecab, rules, tokenizer, vocab, wordpiece
from electra_jax.text.rules import Rules

# A sentence of each language, with what its marks tell apart.
TEXTS = {
    "japanese": "ガラスのパンを食べました。ぎゅうにゅうをのむ。",
    "thai": "ภาษาไทยมีระดับเสียงของคำ น้ำตกที่สวยที่สุด",
    "hindi": "हिन्दी भारत की राजभाषा है, किताब रखी है",
    "arabic": "اللُّغَةُ العربية، أحمد مؤمن آمن",
    "hebrew": "עִבְרִית היא שפה, שָׁלוֹם עולם",
    "korean": "한국어는 한국의 공용어이다",
    "vietnamese": "tiếng việt là ngôn ngữ của người việt, đường phố",
}
TURKISH = "IŞIK ILIK İNCİ İstanbul, kışın sıcak çay içmek güzeldir"
LOWERED = "ışık ılık inci istanbul, kışın sıcak çay içmek güzeldir"
PROTEIN = "MKVLAAGIVG" * 15


def write(path: Path, text: str, times: int = 60) -> str:
    path.write_text("".join(f"{text} {i}\n\n" for i in range(times)), encoding="utf-8")
    return str(path)


def without_blanks(text: str) -> str:
    return "".join(text.split())


def train(tmp_path: Path, text: str, kind: str, **options) -> tokenizer.Tokenizer:
    """The largest vocabulary of the text."""
    folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
    corpus = [write(tmp_path / "a.txt", text)]
    with pytest.raises(UserError) as refused:
        vocab.train(corpus, kind, 2000, folder, **options)
    size = int(re.findall(r"to ([\d,]+) \(more", str(refused.value))[0].replace(",", ""))
    vocab.train(corpus, kind, size, folder, **options)
    return tokenizer.load(folder)


@pytest.mark.parametrize("kind", vocab.KINDS)
@pytest.mark.parametrize("language", TEXTS)
def test_no_flag_keeps_the_letters(tmp_path, kind, language):
    """Catches glass that becomes a crow in Japanese, and every like loss, without any flag."""
    text = TEXTS[language]
    loaded = train(tmp_path, text, kind)
    expected = unicodedata.normalize("NFKC" if kind != "wordpiece" else "NFC", text)
    assert without_blanks(loaded.normalize(text)) == without_blanks(expected)
    assert loaded.special.unk not in loaded.encode(text)
    assert not loaded.strip_accents


@pytest.mark.parametrize("kind", vocab.KINDS)
@pytest.mark.parametrize("language", TEXTS)
def test_stripping_is_for_accents(tmp_path, kind, language):
    """Catches --accents strip that takes the voicing, vowels or points of another script."""
    text = f"{TEXTS[language]} Café ЁЛКА ά"
    loaded = train(tmp_path, text, kind, accents="strip")
    found = loaded.normalize(TEXTS[language])
    if language == "vietnamese":
        assert found == "tieng viet la ngon ngu cua nguoi viet, đuong pho"
    else:
        kept = unicodedata.normalize("NFKC" if kind != "wordpiece" else "NFC", TEXTS[language])
        assert without_blanks(found) == without_blanks(kept)
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, "Café ЁЛКА ά")
        assert loaded.normalize(written) == "cafe елка α"
        assert loaded.encode(written) == loaded.encode("cafe елка α")


def test_wordpiece_of_english_has_berts_rule(tmp_path, capsys):
    """Catches an English vocabulary that older tools, which know BERT's rule alone, read otherwise."""
    text = (
        "the quick brown fox jumps over the lazy dog again and again in the caf\u00e9 of the town "
        * 3
    )
    loaded = train(tmp_path, text.replace("\u00e9", "e"), "wordpiece")
    assert loaded.definition["normalizer"]["strip_accents"] is True
    assert loaded.normalize("ガ") == "カ"
    assert "accents: bert" in capsys.readouterr().err
    german = train(tmp_path, "Größe Öl und Maß, für Äpfel", "wordpiece")
    assert german.definition["normalizer"]["strip_accents"] is False
    assert train(tmp_path, TEXTS["japanese"], "wordpiece", accents="bert").normalize("ガ") == "カ"


@pytest.mark.parametrize("kind", vocab.KINDS)
@pytest.mark.parametrize("accents", [None, "strip"])
def test_dotless_i(tmp_path, kind, accents):
    """Catches IŞIK that becomes işik, and İ that becomes an i with a dot too many."""
    loaded = train(tmp_path, TURKISH, kind, language="tr", accents=accents)
    expected = (
        LOWERED if accents is None else "ısık ılık inci istanbul, kısın sıcak cay icmek guzeldir"
    )
    assert loaded.normalize(TURKISH) == expected
    assert loaded.normalize(unicodedata.normalize("NFD", TURKISH)) == unicodedata.normalize(
        "NFC" if kind != "wordpiece" or accents else "NFD", expected
    )
    flat, _ = loaded.encode_flat([TURKISH])
    assert flat.tolist() == loaded.encode(TURKISH) == loaded.encode(expected)
    loaded.save(tmp_path / "saved")
    assert tokenizer.load(tmp_path / "saved").hash == loaded.hash


def test_language_of_a_vocabulary_of_others(tmp_path):
    """Catches a flag that is forgotten on the way, or taken where a model has rules of its own."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ı", "i", "##ı", "##i"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    plain = tokenizer.load(tmp_path / "vocab.txt")
    loaded = tokenizer.load(tmp_path / "vocab.txt", language="tr")
    assert loaded.tokens(loaded.encode("I İ")) == ["ı", "i"]
    loaded.save(tmp_path / "saved")
    assert tokenizer.load(tmp_path / "saved").hash == loaded.hash != plain.hash
    cased = tokenizer.load(tmp_path / "saved", lowercase=False)
    assert cased.normalize("I İ") == "I İ"
    with pytest.raises(UserError, match="Known: tr, az|tr"):
        tokenizer.load(tmp_path / "vocab.txt", language="de")
    model = train(tmp_path, TURKISH, "unigram")
    model.save(tmp_path / "model")
    with pytest.raises(UserError, match="own rules, without the dotless i"):
        tokenizer.load(tmp_path / "model", language="tr")


def test_table_of_the_original_rule_is_what_it_was():
    """Catches another table for `--accents bert` than the one before there was a choice."""
    for point in (*range(1, 0x3100), *range(0xFF00, 0xFFF0)):
        before = chr(point)
        text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", before).lower())
        kept = [
            " " if c.isspace() or c == "\u2581" else c
            for c in text
            if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Mn")
        ]
        assert Rules(accents="bert").normalize(before) == unicodedata.normalize(
            "NFC", "".join(kept)
        )


def test_effect_is_said(tmp_path, capsys):
    """Catches rules whose doings are not said, or said wrongly."""
    found = effect.of({"É": 3, "A": 5, "e": 2, "1": 9, "ｶ": 1}, Rules(accents="strip").normalize)
    assert found.letters == 11
    assert found.changes == {
        "case": {("A", "a"): 5},
        "marks": {("É", "e"): 3},
        "form": {("ｶ", "カ"): 1},
    }
    train(tmp_path, TURKISH, "bpe", accents="strip")
    said = capsys.readouterr().err
    assert "take the marks off" in said and "ç -> c" in said
    assert "--language tr or az" in said


def test_effect_is_readable():
    """Catches "1e+02%", a letter shown to become itself, and Turkish case told as a lost mark."""
    rules_ = Rules(lowercase=True, language="tr")
    assert effect.of({"İ": 3, "I": 1}, rules_.normalize).said("case") == "4 (100%; İ -> i, I -> ı)"
    korean = effect.of({"다": 996, "a": 4}, lambda text: unicodedata.normalize("NFD", text))
    assert korean.said("form") == "996 (100%; 다 -> ᄃ + ᅡ)"
    assert effect.of({"É": 2, "e": 98}, str.lower).said("case") == "2 (2%; É -> é)"


def test_steps_are_read_back():
    """Catches steps of a normaliser that are not known again, and steps of others taken for ours."""
    for accents in ("keep", "strip"):
        for dotted in (False, True):
            assert rules.read_steps(rules.steps(accents, dotted)) == (accents, dotted)
    assert rules.read_steps([{"type": "NFKC"}]) is None


def test_long_words(tmp_path, capsys):
    """Catches a corpus of proteins that is trained on and then encoded as [UNK] without a word."""
    short = train(tmp_path, PROTEIN, "wordpiece")
    said = capsys.readouterr().err
    assert (
        "60 words have more than 100 characters (98" in said
        and "--max-word (up to 150 here)" in said
    )
    assert short.encode(PROTEIN) == [short.special.unk]
    assert lost.Lost(short).count([f"{PROTEIN} aa {PROTEIN}", "a €"]) == (301, 300)
    long = train(tmp_path, PROTEIN, "wordpiece", max_word=150)
    assert "warning" not in capsys.readouterr().err
    assert long.special.unk not in long.encode(PROTEIN)
    assert lost.Lost(long).count([PROTEIN]) == (0, 0)
    long.save(tmp_path / "saved")
    said = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["model"]
    assert said["max_input_chars_per_word"] == 150
    again = tokenizer.load(tmp_path / "saved")
    assert again.hash == long.hash and again.max_word == 150
    short.save(tmp_path / "short")
    assert tokenizer.load(tmp_path / "short", max_word=150).encode(PROTEIN) != [1]


def test_long_words_are_bounded(tmp_path):
    """Catches a limit under which one word takes minutes, and one that means nothing."""
    path = write(tmp_path / "a.txt", PROTEIN)
    for wrong in (0, wordpiece.MOST_WORD + 1):
        with pytest.raises(UserError, match=f"--max-word {wrong} is not 1 to"):
            vocab.train([path], "wordpiece", 40, tmp_path / "tok", max_word=wrong)
    with pytest.raises(UserError, match="unigram has no limit"):
        vocab.train([path], "unigram", 40, tmp_path / "tok", max_word=200)
    unigram = train(tmp_path, PROTEIN, "unigram")
    assert unigram.special.unk not in unigram.encode(PROTEIN)


def test_japanese_words_by_mecab(tmp_path):
    """Catches MeCab's words that are trained on and then forgotten, or cut otherwise in `load`."""
    pytest.importorskip("fugashi")
    corpus = [write(tmp_path / "a.txt", f"{TEXTS['japanese']} 東京都に住む。")]
    segmenter = mecab.Segmenter(dictionary="ipadic")
    vocab.train(corpus, "wordpiece", 70, tmp_path / "tok", lowercase=False, segmenter=segmenter)
    loaded = tokenizer.load(tmp_path / "tok")
    assert loaded.cuts_words and loaded.strip_accents is False and not loaded.lowercase
    text = "ガラスの東京都"
    found = loaded.tokens(loaded.encode(text))
    pieces = "".join(token if token.startswith("##") else f" {token}" for token in found)
    assert pieces.replace("##", "").split() == segmenter(text)
    for wrong in ({"language": "tr"}, {"accents": "bert"}, {"max_word": 200}):
        with pytest.raises(UserError, match="--segmenter mecab is for"):
            vocab.train(corpus, "wordpiece", 70, tmp_path / "x", segmenter=segmenter, **wrong)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "vocab.txt").write_bytes((tmp_path / "tok" / "vocab.txt").read_bytes())
    bare = tokenizer.load(tmp_path / "bare" / "vocab.txt", lowercase=False, segmenter=segmenter)
    assert bare.hash == loaded.hash
    with pytest.raises(UserError, match="not for a unigram tokenizer"):
        unigram = train(tmp_path, TEXTS["japanese"], "unigram")
        unigram.save(tmp_path / "unigram")
        tokenizer.load(tmp_path / "unigram", segmenter=segmenter)
