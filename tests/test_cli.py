"""The command line: every command of the README in real processes, and every mistake in one line with status 2."""

import gzip
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from electra_jax import cli
from electra_jax.cli import commands

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["the", "a", "cat", "dog", "house", "river", "sees", "finds", "likes", "under", "over"]
WORDS += ["green", "small", "old", "quick", "zebra"]
TRAIN = [
    "--config.train.steps=4",
    "--config.train.eval_every=4",
    "--config.train.checkpoint_every=2",
]


def text(seed: int, documents: int = 60) -> str:
    """Words in a fixed disorder, a paragraph a line, a blank line between documents."""
    draw = random.Random(seed)
    lines = []
    for number in range(documents * 4):
        lines.append(" ".join(draw.choices(WORDS, k=9)).capitalize() + f" {number}.")
        if number % 4 == 3:
            lines.append("")
    return "\n".join(lines) + "\n"


def run(arguments: Sequence[object], cwd: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """`electra-jax ...` in a process of its own, on one device."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "electra_jax", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, **more)  # type: ignore[call-overload]


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must be refused: status 2, one error on stderr, details indented; returns it."""

    def check(*arguments: object) -> str:
        capsys.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert status == 2, err
        if err.startswith("reading "):  # which format is taken
            err = err.split("\n", 1)[1]
        assert err.startswith("error: "), err
        assert [line for line in err.splitlines()[1:] if not line.startswith("  ")] == [], err
        assert out == ""
        return err

    return check


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus.txt, a tokenizer `tok` and prepared `data` of rows of 32 tokens; not to be changed."""
    home = tmp_path_factory.mktemp("made")
    (home / "corpus.txt").write_text(text(0))
    tok = [
        "vocab",
        "--input",
        home / "corpus.txt",
        "--kind",
        "wordpiece",
        "--size",
        120,
        "--output",
        home / "tok",
    ]
    data = ["prepare", "--input", home / "corpus.txt", "--tokenizer", home / "tok", "--seq-len", 32]
    assert cli.main([str(a) for a in tok]) == 0
    assert (
        cli.main([str(a) for a in [*data, "--output", home / "data", "--valid-fraction", 0.2]]) == 0
    )
    return home


@pytest.fixture(scope="module")
def trained(made: Path) -> Path:
    """A workdir with a short run of `tiny` on the data of `made`; not to be changed."""
    arguments = ["pretrain", "--config", "tiny", "--workdir", "run", "--config.data.path=data"]
    result = run([*arguments, *TRAIN], made)
    assert result.returncode == 0, result.stderr
    return made / "run"


# --- the grammar


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no command; one of vocab"),
        (["--versio"], "Did you mean '--version'"),
        (["pretain"], "Did you mean 'pretrain'"),
        (
            ["xyz"],
            "Known: vocab, prepare, pretrain, plan, evaluate, doctor, export, import, bench, score, score-text, "
            "finetune, predict, quickstart",
        ),
        (["vocab", "--kind", "bpe", "--size", "9", "--output", "o"], "--input"),
        (["vocab", "--inptu", "x"], "unknown flag '--inptu'. Did you mean '--input'"),
        (
            ["vocab", "--input", "x", "--kind", "wordpeice", "--size", "9", "--output", "o"],
            "'wordpiece'",
        ),
        (
            ["vocab", "--input", "x", "--kind", "bpe", "--size", "0", "--output", "o"],
            "not 6 to 5,000,000",
        ),
        (
            ["vocab", "--input", "x", "--kind", "bpe", "--size", "many", "--output", "o"],
            "whole number",
        ),
        (
            ["prepare", "--input", "x", "--tokenizer", "t", "--seq-len", "4", "--output", "o"],
            "at least 8",
        ),
        (["prepare", "--valid-fraction", "0.6"], "0.6 is not 0 to 0.5"),
        (
            [
                "vocab",
                "--input",
                "x",
                "--kind",
                "wordpiece",
                "--size",
                "9",
                "--output",
                "o",
                "--dictionary",
                "ipadic",
            ],
            "--dictionary ipadic is for --segmenter mecab",
        ),
        (
            [
                "prepare",
                "--input",
                "x",
                "--tokenizer",
                "t",
                "--seq-len",
                "9",
                "--output",
                "o",
                "--beam-options=--a=1",
            ],
            "are for --runner beam",
        ),
        (
            ["pretrain", "--config", "finetune", "--workdir", "w"],
            "--config finetune is for electra-jax finetune; here one of:\n  base ",
        ),
        (["prepare", "--valid-input", "x", "--valid-fraction", "0.1"], "not allowed with"),
        (["pretrain", "--config", "tiny"], "--workdir"),
        (["pretrain", "--workdir", "w", "--conifg=tiny"], "Did you mean '--config'"),
        (
            ["pretrain", "--workdir", "w", "--config", "tiny", "--config.train.steps"],
            "has no value",
        ),
        (["pretrain", "--workdir", "w", "--config", "tiny", "stray"], "stray"),
        (["evaluate", "--workdir", "w", "--config.train.steps=1"], "evaluate takes no config"),
        (["evaluate", "--work", "w"], "unknown flag '--work'"),
        (["export", "--workdir", "w", "--output", "o", "--step", "-1"], "too small"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], expected: str, refuse: Refuse):
    """Catches argparse's usage dump, abbreviations that hide typos, and errors without the right word."""
    assert expected in refuse(*arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("vocab --input a.txt --kind bpe --size 9 --output az://b/x", "--output az://b/x: only gs"),
        ("finetune --config gs://b/f.py --workdir x", "--config gs://b/f.py: a local path"),
        ("finetune --config finetune:sst2 --workdir x --config.data.train=hf://b", "data.train hf"),
        ("import --discriminator hdfs://b/d --workdir x", "--discriminator hdfs://b/d: only gs"),
        ("predict --workdir x --input S3://b --output y", "--input S3://b: only gs"),
        ("quickstart --workdir gs://b/x", "Flags of quickstart that take buckets: none"),
        ("quickstart --workdir file:///home/x", "give the path itself, /home/x"),
        ("export --workdir x --output az://b/x", "--output az://b/x: only gs"),
        (
            "pretrain --config tiny --workdir x --config.data.path=abfs://b",
            "--config.data.path abfs://b",
        ),
        ("score --task sst2 --references GS://a --predictions x", "--references GS://a: only gs"),
    ],
)
def test_addresses_are_no_folders(
    arguments: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
):
    """Catches `gs://b/x` written into a local folder `gs:` by a command that then says "wrote"."""
    monkeypatch.chdir(tmp_path)
    assert expected in refuse(*arguments.split())
    assert list(tmp_path.iterdir()) == []


def test_a_column_may_look_like_an_address(refuse: Refuse):
    """Catches the name of a column, as JSON-LD has it, refused as a path that cannot be read."""
    key = "http://schema.org/text"
    said = refuse(
        *["vocab", "--input", "gone.txt", "--kind", "bpe", "--size", "900", "--output", "x"],
        "--text-key",
        key,
    )
    assert "gone.txt" in said and key not in said


@pytest.mark.parametrize("command", ["", *commands._COMMANDS])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]):
    """Catches a command whose help does not show how to use it."""
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"] if command else ["--help"])
    assert end.value.code == 0
    assert (
        f"electra-jax {command}".strip() in capsys.readouterr().out.partition("example")[2]
        or not command
    )


def test_a_closed_pipe_is_no_error():
    """Catches a BrokenPipeError traceback from `electra-jax ... | head`."""
    script = "import sys; from electra_jax.cli import commands; "
    script += "commands._COMMANDS['evaluate'] = lambda options: print('result'); "
    script += "sys.exit(commands.main(['evaluate', '--workdir', 'run']))"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # long before Python is up
    assert process.stderr.read() == b""
    assert process.wait() == commands.BROKEN_PIPE


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Catches a traceback on Ctrl-C, or success reported for work that was stopped."""

    def stop(_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(commands._COMMANDS, "quickstart", stop)
    assert cli.main(["quickstart"]) == commands.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


# --- bad text


def bad_files(folder: Path) -> None:
    """Files with one fault each."""
    good = text(1).encode()
    (folder / "good.txt").write_bytes(good)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b"\n\n \n")
    (folder / "latin1.txt").write_bytes(good + "caf\xe9 au lait\n".encode("latin-1"))
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "cut.txt.gz").write_bytes(gzip.compress(good * 50)[:-400])
    (folder / "nokey.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    (folder / "broken.jsonl").write_text(json.dumps({"text": "x y z"}) + "\n{\n")
    (folder / "image.png").write_bytes(b"\x89PNG\r\n")


BAD_TEXT = {
    "missing.txt": r"missing\.txt",
    "none-*.txt": r"none-\*\.txt",
    "empty.txt": r"empty\.txt.*empty",
    "blank.txt": r"blank\.txt",
    "latin1.txt": r"latin1\.txt.*byte \d+|byte \d+.*latin1\.txt",
    "binary.txt": r"binary\.txt",
    "cut.txt.gz": r"cut\.txt\.gz",
    "nokey.jsonl": r"nokey\.jsonl.*text",
    "broken.jsonl": r"broken\.jsonl.*2",
    "image.png": r"image\.png",
    "tfds:no_such_data_set": r"no_such_data_set",
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_text_leaves_nothing(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
):
    """Catches text that is half read, replaced by question marks, or leaves an output behind; both commands."""
    monkeypatch.chdir(tmp_path)
    bad_files(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    vocab = ("vocab", "--kind", "wordpiece", "--size", 100, "--output", "out")
    prepare = ("prepare", "--tokenizer", made / "tok", "--seq-len", 32, "--output", "out")
    for command in (vocab, prepare):
        # The good file comes first: the fault is met in the middle of the work.
        message = refuse(*command, "--input", "good.txt", name)
        assert re.search(BAD_TEXT[name], message), message
        assert sorted(p.name for p in tmp_path.iterdir()) == before


# --- vocab and prepare


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_a_corpus_too_small_for_the_vocabulary(kind: str, tmp_path: Path, refuse: Refuse):
    """Catches a vocabulary smaller than asked for, or a library's own exception."""
    (tmp_path / "corpus.txt").write_text(text(0, documents=2))
    out = tmp_path / "out"
    message = refuse(
        "vocab", "--input", tmp_path / "corpus.txt", "--kind", kind, "--size", 5000, "--output", out
    )
    assert "5000" in message.replace(",", "")
    assert not out.exists()


def test_an_output_that_exists(made: Path, refuse: Refuse):
    """Catches an output that is written over, or merged with."""
    corpus = made / "corpus.txt"
    assert "already exists" in refuse(
        "vocab", "--input", corpus, "--kind", "wordpiece", "--size", 100, "--output", made / "tok"
    )
    prepare = ("prepare", "--input", corpus, "--tokenizer", made / "tok", "--seq-len", 32)
    assert "already exists" in refuse(*prepare, "--output", made / "data")
    assert "already exists" in refuse(*prepare, "--output", corpus)


def test_a_vocabulary_on_a_bucket(
    made: Path, tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
):
    """Catches gs://... taken for a local folder `gs:`, whose tokenizer nobody finds on the bucket."""
    from electra_jax import remote
    from electra_jax.spec import UserError

    def no_access(url: str, write: bool = False) -> None:
        raise UserError(f"cannot reach {url}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "check_access", no_access)
    output = ("--input", made / "corpus.txt", "--output", "gs://b/x")
    assert "cannot reach gs://b/x" in refuse("vocab", *output, "--kind", "bpe", "--size", 100)
    prepare = ("prepare", *output, "--tokenizer", made / "tok", "--seq-len", 32)
    assert "cannot reach gs://b/x" in refuse(*prepare)
    assert list(tmp_path.iterdir()) == []


def test_copies_left_out_are_counted(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches documents left out by --dedup of which the user hears nothing."""
    text = tmp_path / "a.txt"
    text.write_text("one two\n\nthree\n\nOne  two\n")
    data = ["--tokenizer", made / "tok", "--seq-len", 32, "--output", tmp_path / "out"]
    arguments = ["prepare", "--input", text, *data, "--dedup", "exact"]
    assert cli.main([str(a) for a in arguments]) == 0
    assert "left out 1 documents that copy earlier ones" in capsys.readouterr().out


def test_wrong_tokenizers(made: Path, tmp_path: Path, refuse: Refuse):
    """Catches a vocabulary without its special tokens, or a folder that is no tokenizer, found out late or never."""
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.model").write_bytes(b"not a model")
    for name, expected in (
        ("vocab.txt", r"\[MASK\]"),
        ("folder", "folder"),
        ("x.model", r"x\.model"),
        ("missing", "missing"),
    ):
        arguments = ("--tokenizer", tmp_path / name, "--seq-len", 32, "--output", tmp_path / "out")
        assert re.search(expected, refuse("prepare", "--input", made / "corpus.txt", *arguments))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["vocab", "prepare"])
def test_a_full_disk(command: str, made: Path, tmp_path: Path):
    """Catches a traceback, or a part of an output, when the disk fills up (here: no file may pass 4 kB)."""
    more = {
        "vocab": ["--kind", "wordpiece", "--size", "120"],
        "prepare": ["--tokenizer", made / "tok", "--seq-len", "32", "--workers", "1"],
    }[command]
    result = run(
        [command, "--input", made / "corpus.txt", *more, "--output", "out"],
        tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- pretrain


def pretrain(made: Path, workdir: Path, *more: str, data: Path | None = None) -> list[object]:
    """The arguments of a run of `tiny`."""
    path = f"--config.data.path={data or made / 'data'}"
    return ["pretrain", "--config", "tiny", "--workdir", workdir, path, *TRAIN, *more]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--config.optim.peek_lr=1"], "Did you mean 'optim.peak_lr'"),
        (["--config.model.width", "x"], "model.width='x': expected int"),
        (["--config.train.batch=12"], "8 devices"),
        (["--config.train.accumulation=3"], "accumulation=3"),
        (["--config.model.positions=16"], "--config.model.positions=32"),
        (["--config.model.heads=3"], "model.heads=3"),
        (["--config.model.tying=nnoe"], "'none'"),
        (["--config.objective.name=electr"], "'electra'"),
        (["--config.objective.mask_prob=1.5"], "mask_prob"),
        (["--config.optim.name=sgd"], "sgd"),
        (["--config.optim.warmup=-1"], "warmup"),
        (["--config.train.steps=0"], "train.steps=0"),
        (["--config.mesh.fsdp=3"], "fsdp"),
    ],
)
def test_options_that_cannot_work(
    more: list[str], expected: str, made: Path, tmp_path: Path, refuse: Refuse
):
    """Catches an option that is found wrong after minutes, or that trains something else than was asked for."""
    assert expected in refuse(*pretrain(made, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_data_that_are_none(made: Path, tmp_path: Path, refuse: Refuse):
    """Catches shards that are missing or cut short, foreign folders, and no data at all."""
    workdir = tmp_path / "run"
    assert "--config.data.path" in refuse("pretrain", "--config", "tiny", "--workdir", workdir)
    assert "nowhere" in refuse(*pretrain(made, workdir, data=tmp_path / "nowhere"))
    assert "tok" in refuse(*pretrain(made, workdir, data=made / "tok"))
    broken = tmp_path / "broken"
    shutil.copytree(made / "data", broken)
    shard = next(broken.glob("*train*array_record*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    assert shard.name in refuse(*pretrain(made, workdir, data=broken))
    shard.unlink()
    assert shard.name in refuse(*pretrain(made, workdir, data=broken))
    assert not workdir.exists()


@pytest.mark.slow
def test_workdirs_of_others(made: Path, trained: Path, tmp_path: Path, refuse: Refuse):
    """Catches a run that goes on under another config or on other data, and one started in a foreign folder."""
    before = (trained / "config.json").read_bytes()
    message = refuse(*pretrain(made, trained, "--config.optim.peak_lr=0.5"))
    assert "optim.peak_lr: was 0.001, now 0.5" in message
    other = tmp_path / "data"
    arguments = [
        "--input",
        made / "corpus.txt",
        "--tokenizer",
        made / "tok",
        "--seq-len",
        32,
        "--seed",
        1,
    ]
    assert cli.main([str(a) for a in ["prepare", *arguments, "--output", other]]) == 0
    assert "fingerprint" in refuse(*pretrain(made, trained, data=other))
    assert (trained / "config.json").read_bytes() == before
    assert "no run to resume" in refuse("pretrain", "--workdir", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    foreign = tmp_path / "foreign"
    (foreign / "checkpoints" / "7").mkdir(parents=True)
    assert "not a workdir" in refuse(*pretrain(made, foreign))


# --- evaluate, export, import


@pytest.mark.slow
def test_workdirs_that_are_none(trained: Path, tmp_path: Path, refuse: Refuse):
    """Catches a traceback, or an empty output, for a folder without a run and for a step without a checkpoint."""
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert folder in refuse("evaluate", "--workdir", tmp_path / folder)
        assert folder in refuse(
            "export", "--workdir", tmp_path / folder, "--output", tmp_path / "hf"
        )
    assert "99" in refuse("evaluate", "--workdir", trained, "--step", 99)
    assert "99" in refuse("export", "--workdir", trained, "--output", tmp_path / "hf", "--step", 99)
    assert "already exists" in refuse("export", "--workdir", trained, "--output", trained)
    assert not (tmp_path / "hf").exists()


@pytest.mark.slow
def test_data_of_another_tokenizer(made: Path, trained: Path, tmp_path: Path, refuse: Refuse):
    """Catches an evaluation on ids that mean other words."""
    corpus = made / "corpus.txt"
    vocab = [
        "vocab",
        "--input",
        corpus,
        "--kind",
        "wordpiece",
        "--size",
        110,
        "--output",
        tmp_path / "tok",
    ]
    assert cli.main([str(a) for a in vocab]) == 0
    prepare = ["prepare", "--input", corpus, "--tokenizer", tmp_path / "tok", "--seq-len", 32]
    assert cli.main([str(a) for a in [*prepare, "--output", tmp_path / "data"]]) == 0
    message = refuse("evaluate", "--workdir", trained, "--data", tmp_path / "data")
    assert "another tokenizer" in message


@pytest.mark.slow
def test_folders_that_are_no_models(trained: Path, tmp_path: Path, refuse: Refuse):
    """Catches an import with missing or extra tensors, a pickle, or no model at all; nothing is written."""
    from safetensors.numpy import load_file, save_file

    assert cli.main(["export", "--workdir", str(trained), "--output", str(tmp_path / "hf")]) == 0
    good, out = tmp_path / "hf" / "discriminator", tmp_path / "out"

    def import_(folder: Path) -> str:
        message = refuse("import", "--discriminator", folder, "--workdir", out)
        assert not out.exists()
        return message

    assert "nothing to import" in refuse("import", "--workdir", out)
    assert "missing" in import_(tmp_path / "missing")
    assert "tok" in import_(trained / "tokenizer")
    tensors = load_file(good / "model.safetensors")
    name = sorted(tensors)[0]
    for change, expected in (
        ({k: v for k, v in tensors.items() if k != name}, name),
        (tensors | {"stray.weight": tensors[name]}, "stray.weight"),
        (tensors | {name: tensors[name][:-1]}, name),
    ):
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        save_file(
            {k: v.copy() for k, v in change.items()}, bad / "model.safetensors", {"format": "pt"}
        )
        assert expected in import_(bad)
        shutil.rmtree(bad)
    shutil.copytree(good, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    assert "rename it to model.safetensors" in import_(tmp_path / "pickled")


# --- the README's commands


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path):
    """Catches a command of the README that does not work as printed, from text to a model that goes on training."""
    (tmp_path / "corpus").mkdir()
    for number in range(2):
        (tmp_path / "corpus" / f"{number}.txt.gz").write_bytes(gzip.compress(text(number).encode()))

    def good(*arguments: object) -> str:
        result = run(arguments, tmp_path)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout

    size = ["--size", "120"]
    good("vocab", "--input", "corpus/*.txt.gz", "--kind", "wordpiece", *size, "--output", "tok/")
    for kind, flags in (
        ("wordpiece", ["--no-lowercase", "--keep-accents"]),
        ("unigram", []),
        ("bpe", []),
    ):
        cased = "cased" if flags else kind
        size = ["--size", "60" if kind == "unigram" else "120"]
        good(
            "vocab",
            "--input",
            "corpus/*.txt.gz",
            "--kind",
            kind,
            *size,
            "--output",
            f"{cased}/",
            *flags,
        )
    prepare = ["prepare", "--input", "corpus/*.txt.gz", "--tokenizer", "tok/", "--seq-len", "32"]
    out = good(*prepare, "--output", "data/", "--valid-fraction", "0.2")
    assert "rows to train on" in out
    good(
        *prepare,
        "--output",
        "single/",
        "--segments",
        "single",
        "--overflow",
        "drop",
        "--workers",
        "2",
    )
    config = str(ROOT / "configs" / "tiny.py")
    good("pretrain", "--config", config, "--workdir", "run/", "--config.data.path=data/", *TRAIN)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    wanted = "step split mlm_loss mlm_accuracy sampled_accuracy disc_loss disc_accuracy disc_auc disc_precision "
    wanted += "disc_recall replaced_fraction tokens_per_s mfu"
    assert set(wanted.split()) <= {key for line in lines for key in line}
    good("pretrain", "--workdir", "run/")  # finished: nothing to do, and no error
    values = json.loads(good("evaluate", "--workdir", "run/"))
    assert values["step"] == 4
    assert values == json.loads((tmp_path / "run" / "evaluate-4.json").read_text())
    assert (
        json.loads(good("evaluate", "--workdir", "run/", "--step", "2", "--data", "data/"))["step"]
        == 2
    )
    good("export", "--workdir", "run/", "--output", "hf/")
    assert sorted(p.name for p in (tmp_path / "hf").iterdir()) == ["discriminator", "generator"]
    pair = ["--discriminator", "hf/discriminator", "--generator", "hf/generator"]
    good("import", *pair, "--workdir", "run2/")
    good(
        "prepare",
        "--input",
        "corpus/*.txt.gz",
        "--tokenizer",
        "hf/discriminator",
        "--seq-len",
        "32",
        "--output",
        "data2/",
    )
    good(
        "pretrain", "--config", "tiny", "--workdir", "run2/", "--config.data.path", "data2/", *TRAIN
    )
    good("export", "--workdir", "run2/", "--output", "hf2/", "--step", "4")
