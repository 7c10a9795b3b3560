"""Opening a prepared folder and reading rows by number."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_jax.data import fingerprint, source
from electra_jax.spec import UserError
from electra_jax.text import tokenizer


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_folder_says_all_that_training_needs(folder, vocab):
    """Catches vocabulary, special ids or length that a config would have to repeat."""
    prepared = source.open_prepared(folder)
    loaded = tokenizer.load(vocab)
    assert prepared.path == folder
    assert prepared.seq_len == 32
    assert prepared.vocab_size == loaded.size
    assert prepared.special == loaded.special
    assert prepared.tokenizer_hash == loaded.hash == tokenizer.load(folder / "tokenizer").hash
    assert len(prepared.source("train")) == prepared.rows["train"]


def test_rows_are_int32_in_the_order_asked_for(folder):
    """Catches rows returned in the order of the shards, doubles left out, and unsigned ids."""
    found = source.open_prepared(folder).source("train")
    numbers = np.array([5, 3, 5, len(found) - 1, 0])
    rows = found.rows(numbers)
    assert list(rows) == ["ids", "types", "docs", "word_starts", "positions"]
    for name, array in rows.items():
        assert array.dtype == np.int32 and array.shape == (5, 32) and array.flags.c_contiguous
        for i, number in enumerate(numbers):
            assert np.array_equal(array[i], found.rows(np.array([number]))[name][0])
    assert rows["positions"][2].tolist() == list(range(32))
    assert found.rows(np.array([], np.int64))["ids"].shape == (0, 32)


def test_negative_numbers_give_empty_rows(folder):
    """Catches Python's counting from the end, which would put real rows into evaluation twice."""
    prepared = source.open_prepared(folder)
    rows = prepared.source("valid").rows(np.array([-1, 0]))
    assert (rows["ids"][0] == prepared.special.pad).all()
    assert not rows["docs"][0].any() and not rows["word_starts"][0].any()
    assert rows["docs"][1].any()
    with pytest.raises(IndexError):
        prepared.source("valid").rows(np.array([prepared.rows["valid"]]))


def test_threads_read_the_same_rows(folder):
    """Catches a reader that is not safe to share."""
    found = source.open_prepared(folder).source("train")
    expected = found.rows(np.arange(len(found)))["ids"]
    order = np.random.default_rng(0).permutation(len(found))
    fresh = source.open_prepared(folder).source("train")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: fresh.rows(n)["ids"], np.array_split(order, 64)))
    assert np.array_equal(np.concatenate(parts), expected[order])


@pytest.mark.parametrize("worth", [0, 10**9])
def test_both_ways_of_reading_give_the_same(folder, monkeypatch, worth):
    """Catches rows in another order, or doubles left out, where few rows of a large shard are read one at a time."""
    expected = source.open_prepared(folder).source("train").rows(np.arange(20))["ids"]
    monkeypatch.setattr(source, "_WORTH_A_LIST", worth)
    numbers = np.array([7, 3, 7, 19, 0, 3])
    found = source.open_prepared(folder).source("train")
    assert np.array_equal(found.rows(numbers)["ids"], expected[numbers])


def test_a_shard_with_fewer_rows_than_recorded(copy):
    """Catches a shard whose rows are not those that the fingerprint counts, told as an index out of range, or never."""
    path = copy / "fingerprint.json"
    info = json.loads(path.read_text())
    train = next(s for s in info["shards"] if s["split"] == "train")
    train["rows"] += 3
    info["counts"]["train"]["rows"] += 3
    path.write_text(json.dumps(info))
    found = source.open_prepared(copy).source("train")
    with pytest.raises(
        UserError, match=rf"{train['name']}: it holds \d+ rows, expected {train['rows']}"
    ):
        found.rows(np.array([0]))


def test_opening_takes_memory_for_shards_not_rows(copy):
    """Catches an index of all rows, and shards opened though nobody reads them: here are 10^9 rows in sparse files."""
    path = copy / "fingerprint.json"
    info = json.loads(path.read_text())
    count, shard = 2000, next(s for s in info["shards"] if s["split"] == "train")
    info["shards"] = [
        {**shard, "name": f"{n:05d}", "rows": 500_000, "bytes": 250_000_000} for n in range(count)
    ]
    info["counts"]["train"]["rows"], info["counts"]["valid"]["rows"] = count * 500_000, 0
    for shard in info["shards"]:
        with open(copy / shard["name"], "wb") as f:
            f.truncate(shard["bytes"])
    path.write_text(json.dumps(info))
    del info
    tracemalloc.start()
    try:
        opened = source.open_prepared(copy).source("train", 8)
        assert len(opened) == 10**9
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_few_shards_stay_open(folder):
    """Catches readers, and with them an index of their rows, that pile up with the shards."""
    found = source.open_prepared(folder)
    train = found.shards("train")[0]
    many = source.Source(
        [folder / train["name"]] * 5, [train["rows"]] * 5, 32, np.dtype("<u2"), 0, 10**4, readers=2
    )
    for number in (0, 1, 2, 3, 4, 0):
        many.rows(np.array([number * train["rows"]]))
        assert len(many._readers) <= 2


def test_missing_and_short_shards_are_all_named(copy):
    """Catches a copy broken off half-way that is found out at step 40,000."""
    train, valid = sorted(copy.glob("*.array_record-*"))
    train.write_bytes(train.read_bytes()[:-100])
    valid.unlink()
    with pytest.raises(UserError, match=f"{train.name} has .* bytes, expected") as error:
        source.open_prepared(copy)
    assert f"{valid.name} is missing" in str(error.value)


def test_damaged_content_names_the_shard(copy):
    """Catches a bit that fell over on the disk and reads as another token."""
    shard = min(copy.glob("*train.array_record-*"))
    data = bytearray(shard.read_bytes())
    data[2000:2100] = bytes(100)
    shard.write_bytes(bytes(data))
    found = source.open_prepared(copy).source("train")
    with pytest.raises(UserError, match=shard.name):
        found.rows(np.arange(len(found)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema version 99"),
        ({"fields": ["ids"]}, "fields"),
        ({"special": None}, "lacks special"),
    ],
)
def test_other_layouts_are_refused(copy, change, message):
    """Catches a folder of another version read by guess."""
    path = copy / "fingerprint.json"
    info = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in info.items() if v is not None}))
    with pytest.raises(UserError, match=message):
        source.open_prepared(copy)


TAMPERED = [
    ("schema", True),
    ("seq_len", -1),
    ("seq_len", 32.0),
    ("seq_len", True),
    ("seq_len", 2**40),
    ("vocab_size", "90"),
    ("vocab_size", 0),
    ("vocab_size", 2**70),
    ("dtype", "O"),
    ("dtype", ["<u2"]),
    ("fields", "ids"),
    ("special.mask", 10_000),
    ("special.mask", None),
    ("special.mask", 0),
    ("special", [0, 1, 2, 3, 4]),
    ("tokenizer.hash", 5),
    ("tokenizer", None),
    ("options", []),
    ("inputs", {}),
    ("counts.train", 7),
    ("counts.train.rows", 3),
    ("counts.train.tokens", -1),
    ("counts.valid.rows", "many"),
    ("shards", {}),
    ("shards.0", "name"),
    ("shards.0.name", "../secret"),
    ("shards.0.name", ".."),
    ("shards.0.name", None),
    ("shards.0.split", "test"),
    ("shards.0.rows", -5),
    ("shards.0.bytes", 1.5),
    ("shards.0.sha256", "x"),
]


@pytest.mark.parametrize(("field", "value"), TAMPERED)
def test_every_field_is_checked(copy, field, value):
    """Catches a traceback, or a file outside of the folder, from a fingerprint that was edited or damaged."""
    path = copy / "fingerprint.json"
    info = node = json.loads(path.read_text())
    *parents, leaf = (int(key) if key.isdigit() else key for key in field.split("."))
    for key in parents:
        node = node[key]
    node[leaf] = value
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match="fingerprint.json") as error:
        source.open_prepared(copy)
    assert str(parents[0] if parents else leaf) in str(error.value)
    assert "\n" not in str(error.value)


@given(st.data())
def test_no_value_gives_a_traceback(folder, data):
    """Catches a field whose type nobody looks at, whatever stands in its place."""
    text = (folder / "fingerprint.json").read_bytes()
    info = node = json.loads(text)
    while True:
        keys = list(range(len(node))) if isinstance(node, list) else list(node)
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    node[key] = data.draw(values | st.lists(values, max_size=3) | st.just({}))
    try:
        parsed = fingerprint.parse("there", json.dumps(info).encode())
    except UserError as error:
        assert str(error).startswith("there")
    else:
        assert parsed["seq_len"] >= 8 and parsed["counts"]["train"]["rows"] > 0


def test_ids_beyond_the_vocabulary_are_refused(copy):
    """Catches a vocabulary size that is smaller than an id of the rows, which a gather would clamp."""
    path = copy / "fingerprint.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"vocab_size": 20}))
    found = source.open_prepared(copy).source("train")
    with pytest.raises(UserError, match="has the id .* says that the vocabulary has 20 entries"):
        found.rows(np.arange(10))


def test_folders_of_before_are_read(copy):
    """Catches a folder of an earlier version refused for what it could not know."""
    path = copy / "fingerprint.json"
    info = json.loads(path.read_text())
    for key in ("held_out", "join_lines"):
        del info["options"][key]
    for counts in info["counts"].values():
        for key in ("document_parts", "null_texts", "empty_articles", "median_document_tokens"):
            del counts[key]
    path.write_text(json.dumps(info))
    opened = source.open_prepared(copy)
    assert len(opened.source("train").rows(np.arange(3))["ids"]) == 3


def test_what_was_not_prepared_is_refused(folder, tmp_path):
    """Catches a raw corpus, or nothing at all, given for prepared data."""
    with pytest.raises(UserError, match="not a folder"):
        source.open_prepared(tmp_path / "nowhere")
    with pytest.raises(UserError, match="prepare"):
        source.open_prepared(tmp_path)
    (tmp_path / "fingerprint.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        source.open_prepared(tmp_path)
    with pytest.raises(UserError, match="valid"):
        source.open_prepared(folder).source("vlaid")


def test_reading_does_not_import_tfds(folder):
    """Catches a second of start-up, and TensorFlow's shadow, in every training run."""
    code = (
        "import sys; from electra_jax.data import source\n"
        f"source.open_prepared({str(folder)!r}).source('train').rows([0])\n"
        "print([m for m in ('tensorflow_datasets', 'jax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
