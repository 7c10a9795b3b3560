"""`prepare` as a Beam pipeline: the rows, counts and errors of this machine's processes."""

import sys

import numpy as np
import pytest

from electra_jax.data import baselines, record
from electra_jax.data.prepare import beam, build
from electra_jax.data.prepare import corpus as corpora
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.spec import UserError


@pytest.fixture
def engine() -> build.Engine:
    """Beam in this process."""
    return beam.engine()


def rows(data: Prepared, split: str) -> list[bytes]:
    """All rows of a split as bytes, sorted."""
    source = data.source(split)
    found = source.rows(np.arange(len(source)))
    table_NxFxL = np.stack([found[name] for name in record.FIELDS], axis=1)
    return sorted(row.tobytes() for row in table_NxFxL)


@pytest.mark.slow
def test_the_same_rows_in_another_order(engine, corpus, vocab, tmp_path, monkeypatch):
    """Catches rows lost, doubled or made otherwise, held-out text in training, counts that are not theirs."""
    monkeypatch.setattr(corpora, "_BLOCK", 2000)  # several blocks an input
    monkeypatch.setattr(build.shards, "_SHARD_BYTES", 20_000)  # several shards
    options = {"valid_fraction": 0.2, "dedup": "exact", "seed": 3}
    (tmp_path / "book.txt").write_text("the of and to in is was he for with his\n" * 2000)  # is cut
    (tmp_path / "part-1.jsonl").write_text('{"text": null}\n')
    corpus = [*corpus, str(tmp_path / "book.txt"), str(tmp_path / "part-1.jsonl")]
    build.prepare(corpus, vocab, 32, tmp_path / "here", **options)
    build.prepare(corpus, vocab, 32, tmp_path / "there", **options, engine=engine)
    here, there = open_prepared(tmp_path / "here"), open_prepared(tmp_path / "there")
    for split in ("train", "valid"):
        assert rows(there, split) == rows(here, split)
    same = set(here.info) - {"shards"}
    assert {key: here.info[key] for key in same} == {key: there.info[key] for key in same}
    assert here.info["counts"]["train"]["document_parts"] > 1
    assert here.info["counts"]["train"]["null_texts"] == 1
    assert len({shard["name"] for shard in there.info["shards"]}) > 3
    assert not (tmp_path / "there" / "parts").exists()

    build.prepare(corpus, vocab, 32, tmp_path / "again", **options, engine=engine)
    assert open_prepared(tmp_path / "again").fingerprint == there.fingerprint
    kept = [(tmp_path / name / baselines.NAME).read_bytes() for name in ("there", "again")]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_an_error_of_a_worker_is_said(engine, vocab, tmp_path):
    """Catches a fault of the input that arrives as pages of an engine's traceback."""
    (tmp_path / "a.jsonl").write_text('{"text": "one two"}\n{"text": "three"}\n{"text": 4}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:3: 'text' is 4; expected a string$"):
        build.prepare(
            [str(tmp_path / "a.jsonl")],
            vocab,
            32,
            tmp_path / "out",
            valid_fraction=0,
            engine=engine,
        )
    assert not (tmp_path / "out").exists()


def test_the_missing_library_is_named(monkeypatch):
    """Catches an ImportError where the extra was not installed."""
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"electra_jax\[beam\]"):
        beam.engine()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runner=Nope", "runner: Nope"),
        ("--runner=no.such.Runner", "No module named"),
        ("--direct_num_workers=many", "direct_num_workers: invalid int"),
        ("--direct_num_worker=2", "Did you mean --direct_num_workers?"),
        ("--runner=DataflowRunner", "project"),
        ("stray", "stray is no option"),
        ("--runner='x", "No closing quotation"),
        ("-h", "-h is no option"),
    ],
)
def test_options_are_checked_before_the_work(options, message):
    """Catches a mistyped option that Beam swallows, and tracebacks of its parser and runners."""
    with pytest.raises(UserError) as error:
        beam.engine(options)
    assert message in str(error.value)
    assert "--beam-options" in str(error.value) and "\n" not in str(error.value)


def test_options_of_a_job_server_are_passed_on(capsys):
    """Catches options refused that only the runner's own server knows."""
    beam.engine("--runner=FlinkRunner --flink_master=x:1 --of_the_server=1")
    assert "does not know --of_the_server=1" in capsys.readouterr().err
