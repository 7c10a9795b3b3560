"""What `prepare` tells the user about the corpus: notes on stderr, none of them an error."""

import collections
import itertools
import math
import statistics
import sys

from electra_jax.data.prepare import work
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.text.sources import documents
from electra_jax.text.tokenizer import Tokenizer

# Shares of all tokens above which a word to the user is due.
_CHINESE, _UNKNOWN = 0.005, 0.05
# Share of all characters above which words that are too long are worth a note; tokens of kana for one of a Chinese
# character from which text is taken as Japanese.
_TOO_LONG, _JAPANESE = 0.001, 0.2

# Held-out rows below which a difference between two models may be chance.
FEWEST_ROWS = 500

# Documents shorter than this share of a row are mostly padding, unless packed.
_SHORT = 0.25

# Of how many inputs the opening is looked at for wrapped lines, and how many documents of it.
_INPUTS_LOOKED_AT, _DOCUMENTS_LOOKED_AT = 16, 1000


def before(corpus: Corpus, tokenizer: Tokenizer) -> bool:
    """Tells of lines that seem to be wrapped, from the openings of some inputs. Whether it did."""
    if corpus.join_lines:
        return False
    paths = [*corpus.paths, *corpus.valid_paths]
    looked_at = paths[:: math.ceil(len(paths) / _INPUTS_LOOKED_AT)]
    widths = {path: documents.wrap_width(path, corpus.text_key) for path in looked_at}
    wrapped = [path for path, width in widths.items() if width is not None]
    if not wrapped:
        return False
    opening = itertools.islice(documents.read(wrapped[0], corpus.text_key), _DOCUMENTS_LOOKED_AT)
    lengths = [int(tokenizer.encode_flat(lines)[1].sum()) for lines in opening]
    others = f" and {len(wrapped) - 1} more of {len(looked_at)} looked at" * (len(wrapped) > 1)
    _say(
        f"the lines of {wrapped[0]}{others} seem to be wrapped, at {widths[wrapped[0]]} columns. Each "
        f"counts as a paragraph and each blank line ends a document, so that the median document has "
        f"{statistics.median_low(lengths)} tokens; --join-lines takes blank lines as the borders of paragraphs"
    )
    return True


def after(
    counts: dict[str, "collections.Counter[str]"],
    job: work.Job,
    valid_fraction: float | None,
    may_join: bool = True,
) -> None:
    """Tells what the text shows about the choice of tokenizer, segmenter, rows and held-out split.

    `valid_fraction` is None where the held-out split has inputs of its own; `may_join` is False where
    lines are joined, or the user has been told that they may be.
    """
    total = counts["train"] + counts["valid"]
    _chinese(total, job)
    _unknown(total, job.tokenizer.max_word)
    if total["null_texts"]:
        _say(f"{total['null_texts']:,} records without a text (null) were skipped")
    if total["empty_articles"]:
        _say(f"{total['empty_articles']:,} articles of nothing but a title were skipped")
    length, seq_len = work.median_length(total), job.plan.seq_len
    if length < _SHORT * seq_len:
        join = (
            ". If these are no documents but paragraphs, join them (--join-lines where blank lines stand "
            "between paragraphs)" * may_join
        )
        pack = "; --pack puts several into a row" * (not job.pack)
        _say(
            f"the median document has {length} tokens, less than a quarter of a row of {seq_len}{join}{pack}"
        )
    _few_rows(counts, valid_fraction)


def _chinese(total: "collections.Counter[str]", job: work.Job) -> None:
    tokens, chinese = max(1, total["tokens"]), total["chinese_tokens"]
    # Japanese and Korean write with Chinese characters, too; jieba knows the words of Chinese alone.
    others = total["kana_tokens"] >= _JAPANESE * chinese or total["hangul_tokens"] >= chinese
    if job.segmenter is None and chinese > _CHINESE * tokens and not others:
        _say(
            f"{chinese / tokens:.1%} of the tokens are Chinese. Without a "
            "segmenter each Chinese character counts as a word, so whole-word masking will mask "
            "single characters there; --segmenter jieba finds the words"
        )


def _unknown(total: "collections.Counter[str]", max_word: int | None) -> None:
    tokens, characters = max(1, total["tokens"]), max(1, total["characters"])
    too_long = total["too_long_characters"]
    unknown = total["unknown_characters"] - too_long
    if too_long > _TOO_LONG * characters:
        _say(
            f"{too_long / characters:.1%} of the characters are in words of more than {max_word} "
            "characters, each of which becomes one [UNK]; give --max-word N, or use a unigram or bpe "
            "vocabulary, which has no such limit"
        )
    share = max(total["unknown_tokens"] / tokens, unknown / characters)
    if share > _UNKNOWN and unknown > too_long:
        _say(
            f"{total['unknown_tokens'] / tokens:.1%} of the tokens, for {unknown / characters:.1%} of "
            "the characters, are unknown to the vocabulary ([UNK]); is it one for this language and "
            "alphabet?"
        )


def _few_rows(counts: dict[str, "collections.Counter[str]"], valid_fraction: float | None) -> None:
    rows, all_rows = counts["valid"]["rows"], counts["train"]["rows"] + counts["valid"]["rows"]
    if rows >= FEWEST_ROWS or valid_fraction == 0:
        return
    said = f"the held-out split has {rows} row{'s' * (rows != 1)}, fewer than {FEWEST_ROWS}: its figures vary by chance"
    needed = math.ceil(100 * FEWEST_ROWS / max(1, all_rows)) / 100
    if valid_fraction is None:
        _say(f"{said}; name more text with --valid-input")
    elif needed <= 0.2:
        _say(f"{said}; --valid-fraction {max(needed, valid_fraction + 0.01):.2f} holds out enough")
    else:
        _say(f"{said}; hold out more with --valid-fraction, or name other text with --valid-input")


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
