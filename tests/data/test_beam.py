"""`prepare` as Beam pipelines: the rows, counts and errors of this machine's processes, on engines that are there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from electra_jax import cli
from electra_jax.data import record
from electra_jax.data.prepare import beam, beam_local, beam_options, build
from electra_jax.data.prepare.engine import plan
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.spec import UserError


def rows(data: Prepared, split: str) -> np.ndarray:
    """All rows of a split, in their order."""
    source = data.source(split)
    found = source.rows(np.arange(len(source)))
    return np.stack([found[name] for name in record.FIELDS], axis=1)


def assert_same(here: Path, there: Path) -> None:
    """The same rows in the same order, and the same said of them; shards may end elsewhere."""
    one, other = open_prepared(here), open_prepared(there)
    for split in ("train", "valid"):
        assert np.array_equal(rows(one, split), rows(other, split))
    same = set(one.info) - {"shards"}
    assert {key: one.info[key] for key in same} == {key: other.info[key] for key in same}


@pytest.fixture
def large(tmp_path, vocab) -> tuple[list[str], Path]:
    """A corpus of several portions, some seconds of work each, and what this machine's processes make of it."""
    paths = []
    for file in range(3):
        lines = [f"the {file} of {n} and to in is was he for with his" for n in range(60_000)]
        lines[::9] = [""] * len(lines[::9])
        path = tmp_path / f"{file}.txt"
        path.write_text("\n".join(lines))
        paths.append(str(path))
    build.prepare(paths, vocab, 32, tmp_path / "here", dedup="exact", workers=1)
    return paths, tmp_path / "here"


def kill_once(folder: Path, find, started: list[int]) -> threading.Thread:
    """Kills one of the processes that `find` returns when the last round has begun."""

    def work() -> None:
        while not list(folder.glob(".there.partial-*/parts/chosen-*")):
            time.sleep(0.05)
        time.sleep(0.5)
        while not (found := find()):
            time.sleep(0.05)
        started.append(found[0])
        os.kill(found[0], signal.SIGKILL)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def children(words: str, parent: int) -> list[int]:
    """The processes below `parent` whose command line has these words (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            one = int(entry.name)
            while words in line and one > 1:
                one = int(
                    (Path("/proc") / str(one) / "stat").read_text().rpartition(")")[2].split()[1]
                )
                if one == parent:
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_rows_of_one_machine(corpus, vocab, tmp_path):
    """Catches rows lost, doubled or made otherwise by Beam in this process."""
    build.prepare(corpus, vocab, 32, tmp_path / "here", seed=3)
    build.prepare(corpus, vocab, 32, tmp_path / "there", seed=3, engine=beam.engine())
    assert_same(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_processes_of_which_one_is_killed(large, vocab, tmp_path, capfd):
    """Catches several workers that are one process, and Beam's wait for a dead one; half a folder left by it."""
    paths, here = large
    killed: list[int] = []
    kill_once(tmp_path, lambda: children("prepare.beam_worker", os.getpid()), killed)
    engine = beam.engine("--direct_num_workers=2")
    build.prepare(paths, vocab, 32, tmp_path / "there", dedup="exact", engine=engine)
    assert killed
    assert_same(here, tmp_path / "there")
    told = capfd.readouterr().err
    assert "a worker process was killed in the round" in told
    assert (
        "Traceback" not in told and "apitools" not in told and "direct_num_workers is" not in told
    )
    assert not children("prepare.beam_worker", os.getpid())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_processes_that_are_killed_every_time(large, vocab, tmp_path, monkeypatch):
    """Catches a round begun again without end."""
    monkeypatch.setattr(beam, "_TRIES", 1)
    kill_once(tmp_path, lambda: children("prepare.beam_worker", os.getpid()), [])
    with pytest.raises(UserError, match=r"was killed in the round .*, 1 times in a row"):
        engine = beam.engine("--direct_num_workers=2")
        build.prepare(large[0], vocab, 32, tmp_path / "there", dedup="exact", engine=engine)
    assert not list(tmp_path.glob("*there*"))


@pytest.fixture
def dask():
    """The address of a Dask scheduler on loopback with two worker processes, and the scheduler's process."""
    pytest.importorskip("distributed")
    environment = {**os.environ, "DASK_LOGGING__DISTRIBUTED": "critical"}
    run = [sys.executable, "-m", "dask"]
    address = "tcp://127.0.0.1:18786"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard"]
    worker = ["worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"]
    processes = [
        subprocess.Popen(
            run + words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for words in (scheduler, worker)
    ]
    yield address, processes[1].pid
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait(20)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_dask_with_two_workers_of_which_one_is_killed(dask, large, vocab, tmp_path):
    """Catches an engine of several machines that loses rows, says DONE, or does not outlive one of them."""
    (address, worker), (paths, here) = dask, large
    killed: list[int] = []
    kill_once(tmp_path, lambda: children("spawn_main", worker), killed)
    options = f"--runner=DaskRunner --dask_client_address={address}"
    for _ in range(60):
        try:
            engine = beam.engine(options)
            break
        except UserError:
            time.sleep(0.5)
    build.prepare(paths, vocab, 32, tmp_path / "there", dedup="exact", engine=engine)
    assert killed
    assert_same(here, tmp_path / "there")


@pytest.mark.slow
def test_dask_on_this_machine(corpus, vocab, tmp_path, capfd):
    """Catches an engine without an address that starts none, or one whose log fills the terminal."""
    pytest.importorskip("distributed")
    build.prepare(corpus, vocab, 32, tmp_path / "here", dedup="near")
    capfd.readouterr()
    engine = beam.engine("--runner=DaskRunner")
    build.prepare(corpus, vocab, 32, tmp_path / "there", dedup="near", engine=engine)
    assert_same(tmp_path / "here", tmp_path / "there")
    told = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert told == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--runner=DaskRunner --dask_client_address=tcp://127.0.0.1:9",
            "scheduler tcp://127.0.0.1:9 does not answer",
        ),
        (
            "--runner=DaskRunner --dask_scheduler_file=/none/x.json",
            "/none/x.json does not exist",
        ),
        ("--runner=FlinkRunner --flink_master=127.0.0.1:9", "127.0.0.1:9 does not answer within"),
        (
            "--runner=SparkRunner --spark_master_url=spark://127.0.0.1:9",
            "spark://127.0.0.1:9 does not answer",
        ),
        (
            "--runner=PortableRunner --job_endpoint=127.0.0.1:9",
            "127.0.0.1:9 does not answer within",
        ),
    ],
)
def test_an_engine_that_is_not_there(options, message, monkeypatch):
    """Catches hours of preparation before an engine that does not answer, and waiting for one without end."""
    monkeypatch.setattr(beam_options, "LIMIT_S", 1)
    with pytest.raises(UserError) as error:
        beam.engine(options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_missing_engine_is_named(monkeypatch):
    """Catches an ImportError where Dask was not installed, and Java not."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"electra_jax\[dask\]"):
        beam.engine("--runner=DaskRunner")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="FlinkRunner starts a job server, which needs Java"):
        beam.engine("--runner=FlinkRunner")


def test_an_unknown_engine_is_refused_before_the_input_is_read(tmp_path, capsys):
    """Catches an exit status other than 2, or an input that is looked at first."""
    flags = [
        "--input",
        "none",
        "--tokenizer",
        "none",
        "--seq-len",
        "8",
        "--output",
        str(tmp_path / "o"),
    ]
    for options in ("--runner=NopeRunner", "--direct_num_worker=2"):
        assert cli.main(["prepare", *flags, "--runner", "beam", f"--beam-options={options}"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: --beam-options: ") and told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ("", False),
        ("--direct_num_workers=4", True),
        ("--runner=DirectRunner --direct_num_workers=0", True),
        ("--direct_num_workers=4 --direct_running_mode=multi_processing", True),
        ("--direct_num_workers=4 --direct_running_mode=multi_threading", False),
    ],
)
def test_several_workers_are_processes(options, processes):
    """Catches the documented command running in one process."""
    assert beam_local.has_processes(beam_options.parsed(options)) == processes


def test_what_an_engine_says_is_one_line(vocab, corpus, tmp_path, monkeypatch):
    """Catches a traceback where an engine, or a task, fails in a way of its own."""

    def broken(*_: object) -> None:
        raise RuntimeError("first\nthe disk has gone away")

    monkeypatch.setattr(plan, "perform", broken)
    with pytest.raises(
        UserError, match=r"failed in the round 'survey', nothing was written"
    ) as error:
        build.prepare(corpus, vocab, 32, tmp_path / "out", engine=beam.engine())
    assert "the disk has gone away" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--direct_num_workers=2", "--runner=DaskRunner"])
def test_an_error_of_a_worker_is_said(options, vocab, tmp_path):
    """Catches a fault of the input that arrives as pages of an engine's traceback."""
    (tmp_path / "a.jsonl").write_text('{"text": "one two"}\n' * 3000 + '{"text": 4}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:3001: 'text' is 4; expected a string$"):
        build.prepare(
            [str(tmp_path / "a.jsonl")],
            vocab,
            32,
            tmp_path / "out",
            valid_fraction=0,
            engine=beam.engine(options),
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
    beam.engine("--runner=FlinkRunner --flink_master=[local] --of_the_server=1")
    assert "does not know --of_the_server=1" in capsys.readouterr().err
