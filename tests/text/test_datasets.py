"""Prepared TFDS data sets are read by name, without TensorFlow."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from electra_jax.spec import UserError
from electra_jax.text.sources import documents


class Toy(tfds.core.GeneratorBasedBuilder):
    """Two splits with a text and a number."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        fields = {"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)}
        features = tfds.features.FeaturesDict(fields)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(300), "test": self._generate_examples(1)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"text": f"Titel {i}\n\nDer größte Absatz.\n", "n": i}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder of the prepared data set."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    Toy(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    return tmp_path / "toy" / "1.0.0"


def test_reads_by_name(toy):
    """Catches records out of order, the wrong split, and TensorFlow creeping in."""
    expected = [[f"Titel {i}", "Der größte Absatz."] for i in range(300)]
    documents.check(["tfds:toy"])
    assert list(documents.read("tfds:toy")) == expected
    assert list(documents.read("tfds:toy", start=299)) == expected[299:]
    for name in ("tfds:toy:test", "tfds:toy:1.0.0:test", f"tfds:{toy}:test"):
        assert list(documents.read(name)) == expected[:1]
    assert "tensorflow" not in sys.modules


def test_refuses(toy):
    """Catches a traceback from the depths of TFDS where a name, split or field is wrong."""
    for name, message in {
        "tfds:nosuch": "tfds:nosuch was not found among prepared data sets",
        "tfds:toy:2.0.0": "was not found",
        "tfds:toy:valid": "no split 'valid'; splits found: train, test",
        "tfds:": "is no data set name; write tfds:NAME",
        "tfds:toy:test:train": "is no data set name",
        f"tfds:{toy.parent}": "was not found",
    }.items():
        with pytest.raises(UserError, match=message):
            documents.check([name])
    with pytest.raises(UserError, match="no field 'body'; fields found: .*'text'"):
        documents.check(["tfds:toy"], "body")
    with pytest.raises(UserError, match="field 'n' is .*; expected Text"):
        documents.check(["tfds:toy"], "n")


def test_damaged_shards(toy):
    """Catches a data set whose records are gone, cut short or overwritten."""
    shard = next(toy.glob("*train*"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="tfds:toy is (cut short: record 0|damaged)"):
        list(documents.read("tfds:toy"))
    shard.write_bytes(data[:100] + bytes(300) + data[400:])
    with pytest.raises(UserError, match="tfds:toy is (cut short|damaged)"):
        list(documents.read("tfds:toy"))
    shard.unlink()
    with pytest.raises(UserError, match="tfds:toy is not complete: 1 of the 1 files of its split"):
        documents.check(["tfds:toy"])


def test_tfrecord_names_the_conversion(toy):
    """Catches TFRecord folders, which TensorFlow alone reads, failing without a way out."""
    info = toy / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match=f"tfds convert_format --dataset_dir={toy} "):
        documents.check(["tfds:toy"])
