"""Tasks whose data are prepared TFDS data sets, read without TensorFlow."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from electra_jax.spec import UserError
from electra_jax.tasks.examples import QaExample, TagExample, TextExample
from electra_jax.tasks.known import catalog

F = tfds.features
FIELDS = {
    "glue": {
        "sentence": F.Text(),
        "label": F.ClassLabel(names=["negative", "positive"]),
        "idx": F.Scalar(np.int32),
    },
    "squad": {
        "id": F.Text(),
        "context": F.Text(),
        "question": F.Text(),
        "answers": F.Sequence({"text": F.Text(), "answer_start": F.Scalar(np.int32)}),
    },
    "conll": {
        "tokens": F.Sequence(F.Text()),
        "ner": F.Sequence(F.ClassLabel(names=["O", "B-PER", "I-PER"])),
    },
}
RECORDS = {
    "glue": [
        {"sentence": "größte", "label": "positive", "idx": 0},
        {"sentence": "b", "label": -1, "idx": 1},
    ],
    "squad": [
        {
            "id": "q",
            "context": "a b c",
            "question": "?",
            "answers": {"text": ["b", "b c"], "answer_start": [2, 2]},
        }
    ],
    "conll": [{"tokens": ["Bob", "sat"], "ner": ["I-PER", "O"]}],
}


class ToyTask(tfds.core.GeneratorBasedBuilder):
    """Three small data sets with the fields of glue/sst2, squad and conll2003."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in FIELDS]  # noqa: RUF012
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = F.FeaturesDict(FIELDS[self.builder_config.name])
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        yield from enumerate(RECORDS[self.builder_config.name])


@pytest.mark.parametrize(
    ("name", "config", "split", "expected"),
    [
        ("sst2", "glue", "test", TextExample("0", "größte", None, "1")),
        ("squad1", "squad", "dev", QaExample("q", "?", "a b c", (("b", 2), ("b c", 2)))),
        ("ner", "conll", "dev", TagExample("0", ("Bob", "sat"), ("B-PER", "O"))),
    ],
)
def test_by_name(tmp_path, monkeypatch, name, config, split, expected):
    """Catches class numbers taken for labels, nested fields not unpacked, the wrong split, TensorFlow."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    ToyTask(
        config=config, data_dir=str(tmp_path), file_format="array_record"
    ).download_and_prepare()
    task = catalog.get(name)
    found = task.read(f"tfds:toy_task/{config}:validation", split)
    assert found[0] == expected
    if split == "test":
        assert found[1].label is None
    else:
        assert task.read(f"tfds:{tmp_path}/toy_task/{config}/1.0.0:validation", split) == found
    assert "tensorflow" not in sys.modules


def test_what_is_not_there(tmp_path, monkeypatch):
    """Catches a download begun, or a traceback, for a data set that is not prepared."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"tfds:glue/sst2:validation was not found"):
        catalog.get("sst2").read("tfds", "dev")
    with pytest.raises(UserError, match="task nsmc has no TFDS name"):
        catalog.get("nsmc").read("tfds", "dev")
