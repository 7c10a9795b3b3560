"""Preparing a corpus: the same bytes always, readable by TFDS, and refusals that leave nothing."""

import hashlib
import json
import random
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from electra_jax.data import record, source
from electra_jax.data.prepare import build, shards
from electra_jax.data.prepare import corpus as corpora
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.text.sources import documents


def digests(folder: Path) -> dict[str, str]:
    """Name and SHA-256 of every file of a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def stream(prepared: source.Prepared, split: str) -> list[int]:
    """The ids of a split's rows one after another, special tokens and padding left out."""
    rows = prepared.source(split).rows(np.arange(prepared.rows[split]))
    special = np.isin(rows["ids"], [prepared.special.cls, prepared.special.sep])
    return rows["ids"][(rows["docs"] > 0) & ~special].tolist()


def test_bytes_depend_on_nothing_but_inputs_and_options(
    folder, corpus, vocab, tmp_path, monkeypatch
):
    """Catches rows that depend on the blocks dealt to workers, results taken out of order, and paths or
    times in the files. Numbers of workers: test_processes.py."""
    monkeypatch.setattr(corpora, "_BLOCK", 5000)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    inputs = [shutil.copy(path, moved) for path in corpus]
    other = tmp_path / "rows2"
    build.prepare(inputs, vocab, 32, other, valid_fraction=0.1, workers=2)
    assert digests(other) == digests(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(folder.parent).encode() not in path.read_bytes()


def test_seed_and_options_change_the_rows(folder, corpus, vocab, tmp_path):
    """Catches an option that is accepted and then ignored."""
    before = source.open_prepared(folder).fingerprint
    seen = {before}
    for i, option in enumerate(
        [{"seed": 1}, {"segments": "full"}, {"overflow": "drop"}, {"valid_fraction": 0.2}]
    ):
        other = tmp_path / str(i)
        build.prepare(corpus, vocab, 32, other, **({"valid_fraction": 0.1} | option))
        opened = source.open_prepared(other)
        shas = tuple(s["sha256"] for s in opened.info["shards"])
        assert opened.fingerprint not in seen and shas not in seen
        seen |= {opened.fingerprint, shas}


def test_tfds_reads_the_folder_without_tensorflow(folder):
    """Catches metadata or records that only our own reader understands."""
    assert "tensorflow" not in sys.modules
    builder = tfds.builder_from_directory(folder)
    prepared = source.open_prepared(folder)
    for split in ("train", "valid"):
        theirs = builder.as_data_source(split)
        ours = prepared.source(split).rows(np.arange(prepared.rows[split]))
        assert len(theirs) == prepared.rows[split] > 10
        rows = np.stack([theirs[i]["row"] for i in range(len(theirs))])
        assert rows.dtype == np.uint16
        for f, name in enumerate(prepared.info["fields"]):
            assert np.array_equal(rows[:, f], ours[name])
    assert "tensorflow" not in sys.modules


def test_every_document_is_in_one_split_whole(folder, corpus):
    """Catches a document in both splits (a leak), one lost, and tokens lost on the way."""
    prepared = source.open_prepared(folder)
    loaded = tokenizer.load(folder / "tokenizer")
    left = {split: stream(prepared, split) for split in ("train", "valid")}
    counts = {"train": 0, "valid": 0}
    for path in corpus:
        for document in documents.read(path):
            ids = [i for line in document for i in loaded.encode(line)]
            # Every document begins with a name of its own, so it can open only one of the two.
            (split,) = (s for s in left if left[s][: len(ids)] == ids)
            left[split] = left[split][len(ids) :]
            counts[split] += 1
    assert left == {"train": [], "valid": []}
    assert counts["train"] + counts["valid"] == 300
    assert 10 < counts["valid"] < 60
    for split, found in prepared.info["counts"].items():
        assert found["documents"] == counts[split]
        assert found["tokens"] == found["text_tokens_in_rows"] == len(stream(prepared, split))


def test_counts_are_those_of_the_rows(folder):
    """Catches a count that is kept beside the rows and drifts from them."""
    prepared = source.open_prepared(folder)
    for split, counts in prepared.info["counts"].items():
        rows = prepared.source(split).rows(np.arange(prepared.rows[split]))
        assert counts["rows"] == len(rows["ids"])
        assert counts["real_tokens"] == (rows["docs"] > 0).sum()
        assert counts["single_segment_rows"] == (rows["types"].max(1) == 0).sum()
        assert counts["real_token_share"] == pytest.approx((rows["docs"] > 0).mean(), abs=1e-6)
        special = np.isin(rows["ids"], [prepared.special.cls, prepared.special.sep])
        assert counts["text_tokens_in_rows"] == ((rows["docs"] > 0) & ~special).sum()


def test_word_starts_follow_the_tokens(folder):
    """Catches word starts that belong to another row, or to specials and padding the wrong way."""
    prepared = source.open_prepared(folder)
    loaded = tokenizer.load(folder / "tokenizer")
    rows = prepared.source("train").rows(np.arange(50))
    for ids, types, docs, starts in zip(
        rows["ids"], rows["types"], rows["docs"], rows["word_starts"], strict=True
    ):
        assert not starts[docs == 0].any()
        for i in np.flatnonzero(docs):
            piece = loaded.tokens([ids[i]])[0]
            # The first token of a segment begins a word even when a cut fell inside one.
            opens = i <= 1 or ids[i - 1] == prepared.special.sep or types[i] != types[i - 1]
            assert starts[i] == (opens or not piece.startswith("##"))


def test_held_out_inputs_are_the_held_out_split(corpus, vocab, tmp_path):
    """Catches held-out files that are split again, or mixed into training."""
    build.prepare(corpus[:1], vocab, 32, tmp_path / "rows", valid_inputs=corpus[1:])
    prepared = source.open_prepared(tmp_path / "rows")
    counts = prepared.info["counts"]
    assert counts["train"]["documents"] == counts["valid"]["documents"] == 150
    loaded = tokenizer.load(vocab)
    assert stream(prepared, "valid")[:2] == loaded.encode("b 0")
    assert [i["name"] for i in prepared.info["valid_inputs"]] == ["b.txt"]


def test_small_corpora_have_a_held_out_document(corpus, vocab, tmp_path):
    """Catches an empty held-out split where a hundredth of the documents is less than one."""
    small = tmp_path / "small.txt"
    small.write_text("the first document\n\nand the second\n")
    build.prepare([str(small)], vocab, 32, tmp_path / "rows")
    assert source.open_prepared(tmp_path / "rows").rows == {"train": 1, "valid": 1}
    build.prepare([str(small)], vocab, 32, tmp_path / "none", valid_fraction=0)
    prepared = source.open_prepared(tmp_path / "none")
    assert prepared.rows == {"train": 2, "valid": 0}
    assert len(prepared.source("valid")) == 0
    assert list(tfds.builder_from_directory(tmp_path / "none").info.splits) == ["train"]


def test_many_shards_are_one_split(folder, corpus, vocab, tmp_path, monkeypatch):
    """Catches row numbers that go wrong at the border of two shards, and rows lost there."""
    monkeypatch.setattr(shards, "_SHARD_BYTES", 20_000)
    build.prepare(corpus, vocab, 32, tmp_path / "rows", valid_fraction=0.1, workers=1)
    many, one = source.open_prepared(tmp_path / "rows"), source.open_prepared(folder)
    sizes = [s["rows"] for s in many.info["shards"] if s["split"] == "train"]
    assert len(sizes) > 5
    assert set(sizes[:-1]) == {20_000 // len(record.encode(np.zeros((1, 4, 32), "<u2"))[0])}
    assert many.rows == one.rows
    numbers = np.random.default_rng(0).permutation(one.rows["train"])
    for name, array in one.source("train").rows(numbers).items():
        assert np.array_equal(array, many.source("train").rows(numbers)[name])
    assert len(tfds.builder_from_directory(tmp_path / "rows").as_data_source("train")) == len(
        numbers
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": ["nowhere/*.txt"]}, "matches no file"),
        ({"seq_len": 3}, "sequence length 3"),
        ({"segments": "pears"}, "pair"),
        ({"valid_fraction": 1.5}, "valid fraction 1.5"),
        ({"workers": 0}, "0 workers"),
        ({"segmenter": "jiebba"}, "jieba"),
        ({"tokenizer": "nowhere"}, "nowhere does not exist"),
        ({"valid_inputs": "same"}, "named both"),
        ({"text": b""}, "is empty"),
        ({"text": b"\n\n  \n"}, "is empty"),
        ({"text": b"one\ntwo\n"}, "single document"),
        ({"text": b"good text\n\n" * 100_000 + b"\xff bad\n"}, "byte 1100000"),
        ({"output": "taken"}, "already exists"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(change, message, corpus, vocab, tmp_path):
    """Catches a traceback instead of a reason, and a half-written folder under the output's name."""
    arguments = {"inputs": corpus[:1], "tokenizer": vocab, "seq_len": 32} | change
    output = tmp_path / arguments.pop("output", "rows")
    if output.name == "taken":
        output.mkdir()
        (output / "something").touch()
    if "text" in arguments:
        text = tmp_path / "text.txt"
        text.write_bytes(arguments.pop("text"))
        arguments["inputs"] = [str(text)]
    if arguments.get("valid_inputs") == "same":
        arguments["valid_inputs"] = [corpus[0]]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        build.prepare(**{"workers": 1} | arguments, output=output)
    assert sorted(tmp_path.iterdir()) == before


def test_a_vocabulary_without_its_special_tokens_is_refused(vocab, corpus, tmp_path):
    """Catches a vocabulary whose [MASK] would be found missing by the training run."""
    poor = tmp_path / "vocab.txt"
    poor.write_text(vocab.read_text(encoding="utf-8").replace("[MASK]\n", ""), encoding="utf-8")
    with pytest.raises(UserError, match=r"\[MASK\]"):
        build.prepare(corpus, poor, 32, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_a_disk_that_refuses_is_one_error_and_leaves_nothing(corpus, vocab, tmp_path):
    """Catches a full disk that ends in a traceback or a short shard; a limit on the size of files
    stands in for it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .* disk full"):
            build.prepare(corpus, vocab, 32, tmp_path / "rows", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_chinese_without_a_segmenter_is_mentioned(vocab, tmp_path, capsys):
    """Catches masking by character that nobody was told about."""
    text = tmp_path / "zh.txt"
    text.write_text("我爱北京天安门\n\n天安门上太阳升\n", encoding="utf-8")
    build.prepare([str(text)], vocab, 32, tmp_path / "rows")
    assert "Chinese" in capsys.readouterr().err
    rows = source.open_prepared(tmp_path / "rows").source("train").rows(np.arange(1))
    assert rows["word_starts"].sum() == 9


def test_the_fingerprint_names_inputs_and_shards(folder, corpus):
    """Catches a fingerprint from which the data's origin or damage cannot be told."""
    info = json.loads((folder / "fingerprint.json").read_text())
    assert [i["name"] for i in info["inputs"]] == ["a.txt", "b.txt"]
    for entry, path in zip(info["inputs"], corpus, strict=True):
        assert entry["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    found = digests(folder)
    assert {s["name"]: s["sha256"] for s in info["shards"]}.items() <= found.items()


def test_an_input_that_changes_is_refused(corpus, vocab, tmp_path, monkeypatch):
    """Catches a fingerprint that describes bytes which were never read."""
    text = tmp_path / "a.txt"
    shutil.copy(corpus[0], text)
    write = build.processes.write

    def replaced(*arguments):
        shutil.copy(corpus[1], tmp_path / "new")
        (tmp_path / "new").replace(text)
        return write(*arguments)

    monkeypatch.setattr(build.processes, "write", replaced)
    with pytest.raises(UserError, match=r"a\.txt was replaced or written to while it was read"):
        build.prepare([str(text)], vocab, 32, tmp_path / "rows", workers=1)
    assert sorted(tmp_path.iterdir()) == [text]


def test_books_give_their_share(vocab, tmp_path, capsys):
    """Catches a held-out split of five rows because a corpus has few documents, and nobody told of it."""
    draw = random.Random(0)
    line = "the of and to in is was he for with his be by this. "
    books = ["".join(f"{line * draw.randrange(2, 9)}\n" for _ in range(900)) for _ in range(3)]
    text = tmp_path / "a.txt"
    text.write_text("\n".join(books))
    for seed in range(3):
        out = tmp_path / str(seed)
        build.prepare([str(text)], vocab, 32, out, valid_fraction=0.1, seed=seed, workers=1)
        prepared = source.open_prepared(out)
        counts = prepared.info["counts"]
        tokens = {split: counts[split]["tokens"] for split in counts}
        assert 0.085 < tokens["valid"] / sum(tokens.values()) < 0.115
        assert prepared.rows["valid"] >= 500
        assert counts["train"]["document_parts"] > 3
        assert prepared.info["options"]["held_out"] == {"by": "bytes", "section_bytes": 8192}
        assert "held-out split" not in capsys.readouterr().err
    build.prepare([str(text)], vocab, 32, tmp_path / "few", workers=1)
    rows = source.open_prepared(tmp_path / "few").rows["valid"]
    assert f"has {rows} rows, fewer than 500" in (said := capsys.readouterr().err)
    assert "--valid-fraction 0.08 holds out enough" in said


def test_wrapped_lines_are_told_and_joined(vocab, tmp_path, capsys):
    """Catches a book of documents of a few words each, and no word about it."""
    line = "the of and to in is was he for with his be by this the of and to"
    text = tmp_path / "book.txt"
    lines = f"{line}\n" * 9
    text.write_text(f"chapter\n\n\n{lines}\n{lines}he was.\n\n\n" * 4)
    build.prepare([str(text)], vocab, 1024, tmp_path / "lines", workers=1)
    said = capsys.readouterr().err
    assert f"book.txt seem to be wrapped, at {len(line)} columns" in said
    assert "the median document has" in said and "--join-lines" in said
    assert "less than a quarter of a row of 1024" in said
    assert said.count("--join-lines") == 1  # advice is not doubled
    out = tmp_path / "joined"
    build.prepare([str(text)], vocab, 64, out, workers=1, join_lines=True)
    assert "wrapped" not in (said := capsys.readouterr().err) and "quarter" not in said
    info = source.open_prepared(out).info
    assert info["options"]["join_lines"] is True
    assert sum(c["documents"] for c in info["counts"].values()) == 4
    assert info["counts"]["train"]["paragraphs"] == 3 * info["counts"]["train"]["documents"]
    assert info["counts"]["train"]["median_document_tokens"] > 250


def test_what_is_skipped_is_counted(vocab, tmp_path, capsys):
    """Catches records without a text that vanish, also where they stand alone in a part."""
    (tmp_path / "a.jsonl").write_text('{"text": "the"}\n{"text": null}\n{"text": "he"}\n')
    (tmp_path / "part-1.jsonl").write_text('{"text": null}\n')
    paths = [str(tmp_path / name) for name in ("a.jsonl", "part-1.jsonl")]
    build.prepare(paths, vocab, 32, tmp_path / "rows", dedup="exact")
    assert "2 records without a text (null) were skipped" in capsys.readouterr().err
    counts = source.open_prepared(tmp_path / "rows").info["counts"].values()
    assert sum(c["null_texts"] for c in counts) == 2
