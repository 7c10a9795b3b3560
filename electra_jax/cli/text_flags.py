"""The flags of the commands that read text: vocab, prepare."""

import argparse

from electra_jax.cli.grammar import Command, at_least, between, held_out


def vocab(command: Command) -> None:
    """Adds `vocab`."""
    c = command(
        "vocab",
        "train a vocabulary on text",
        "electra-jax vocab --input 'corpus/*.txt.gz' --kind wordpiece --size 30522 --output tok/",
    )
    _text(c)
    c.add_argument("--kind", required=True, choices=("wordpiece", "unigram", "bpe"))
    c.add_argument(
        "--size",
        required=True,
        type=between(6, 5_000_000),
        metavar="N",
        help="tokens, special ones included: 6 to 5,000,000, and what the text allows",
    )
    c.add_argument("--output", required=True, help="new folder for the tokenizer")
    _lowercase(c, default=True)
    accents = c.add_mutually_exclusive_group()
    accents.add_argument(
        "--accents",
        choices=("keep", "strip", "bert"),
        help="keep: every mark stays; strip: accents of Latin, Greek and Cyrillic letters vanish; bert: "
        "every mark of every script vanishes, as in the original uncased BERT (default: keep, but bert "
        "for lower-cased WordPiece of text with hardly any, as English)",
    )
    accents.add_argument(
        "--keep-accents",
        dest="accents",
        action="store_const",
        const="keep",
        help="the same as --accents keep",
    )
    _rules(c)
    c.add_argument(
        "--segmenter",
        choices=("mecab",),
        help="WordPiece over the words of Japanese text that MeCab finds (extra ja)",
    )
    c.add_argument(
        "--dictionary",
        choices=("unidic_lite", "ipadic", "unidic"),
        help="of MeCab, for --segmenter mecab (default: unidic_lite)",
    )
    c.add_argument(
        "--sample-bytes",
        type=at_least(1),
        metavar="N",
        help="train on about N bytes drawn evenly from the input, not on all of it",
    )


def prepare(command: Command) -> None:
    """Adds `prepare`."""
    c = command(
        "prepare",
        "turn text into a folder of fixed-length rows of token ids",
        "electra-jax prepare --input 'corpus/*.txt.gz' --tokenizer tok/ --seq-len 128 --output data/",
    )
    _text(c)
    c.add_argument(
        "--tokenizer",
        required=True,
        help="our folder, a Hugging Face folder, a vocab.txt or a SentencePiece .model",
    )
    c.add_argument("--seq-len", required=True, type=at_least(8), metavar="N", help="tokens a row")
    c.add_argument("--output", required=True, help="new folder for the data")
    c.add_argument(
        "--segments",
        choices=("pair", "single", "full"),
        default="pair",
        help="pair: the original's A/B segments; single: one segment a row; "
        "full: rows filled to the end, whatever the paragraphs (default: pair)",
    )
    c.add_argument(
        "--overflow",
        choices=("carry", "drop"),
        default="carry",
        help="text beyond a row's end: carry it to the next row, or drop it as the original does "
        "(default: carry)",
    )
    c.add_argument(
        "--pack",
        action="store_true",
        help="put the rows of several short documents into one, each with positions and attention of its own",
    )
    _held_out(c)
    _engine(c)


def _held_out(c: argparse.ArgumentParser) -> None:
    valid = c.add_mutually_exclusive_group()
    valid.add_argument("--valid-input", nargs="+", metavar="GLOB", help="held-out text")
    valid.add_argument(
        "--valid-fraction",
        type=held_out,
        default=0.01,
        metavar="F",
        help="share of the text held out, up to 0.5: documents, the long ones cut (default: 0.01)",
    )
    c.add_argument(
        "--seed", type=at_least(0), default=0, help="of segments and shuffling (default: 0)"
    )
    c.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes (default: the cores)"
    )


def _engine(c: argparse.ArgumentParser) -> None:
    c.add_argument(
        "--runner",
        choices=("processes", "beam"),
        default="processes",
        help="what does the work: processes of this machine, or an engine by Apache Beam "
        "(default: processes)",
    )
    c.add_argument(
        "--beam-options",
        default="",
        metavar="OPTIONS",
        help="Beam's own, in one word: --beam-options='--direct_num_workers=4', or '--runner=DaskRunner ...' "
        "(default: this process)",
    )
    c.add_argument(
        "--dedup",
        choices=("exact", "near"),
        help="leave out documents that copy an earlier one: the same text, or nearly the same "
        "(default: keep all)",
    )
    c.add_argument(
        "--join-lines",
        action="store_true",
        help="of wrapped text: a paragraph is what stands between blank lines, and a document ends at "
        "two blank lines in a row, or at the end of the file (default: a line is a paragraph)",
    )
    c.add_argument(
        "--segmenter",
        choices=("jieba", "mecab"),
        help="jieba: words of Chinese text for whole-word masking (default: every character is a word); "
        "mecab: words of Japanese text for WordPiece, remembered in the tokenizer's folder (a folder "
        "made with it needs no flag)",
    )
    _lowercase(c, default=None)
    c.add_argument(
        "--keep-accents",
        dest="strip_accents",
        action="store_const",
        const=False,
        help="keep accents in lower case, too (default: as the tokenizer says)",
    )
    _rules(c)


def _text(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="GLOB",
        help=".txt (a paragraph a line, a blank line between documents), .jsonl, .parquet, "
        "WikiExtractor's output, each also .gz .zst .bz2 .xz; or tfds:NAME",
    )
    command.add_argument(
        "--text-key", default="text", help="field of .jsonl and .parquet (default: text)"
    )


def _lowercase(command: argparse.ArgumentParser, default: bool | None) -> None:
    note = "" if default else " (default: as the tokenizer says)"
    command.add_argument(
        "--no-lowercase",
        dest="lowercase",
        action="store_const",
        const=False,
        default=default,
        help=f"keep upper case, and accents with it{note}",
    )


def _rules(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--language",
        choices=("tr", "az"),
        help="lower-case I to the dotless i and \u0130 to i, as Turkish and Azerbaijani do",
    )
    command.add_argument(
        "--max-word",
        type=between(1, 5000),
        metavar="N",
        help="WordPiece: longer words become [UNK] (default: as the tokenizer says, else 100 characters)",
    )
