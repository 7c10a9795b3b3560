"""Commands that are told to leave, or are short of what the shell allows: one line, nothing half-written."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_jax import cli, files
from electra_jax.cli import commands, leaving, limits
from electra_jax.spec import UserError

SIGNALS = {signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted")}


def run(monkeypatch: pytest.MonkeyPatch, command: str, work: Callable[[], None]) -> int:
    """The exit status of `command`, which does `work`."""
    monkeypatch.setitem(commands._COMMANDS, command, lambda options: work())
    arguments = {"prepare": ["--input", "x", "--tokenizer", "y", "--seq-len", "8", "--output", "z"]}
    return cli.main([command, *arguments.get(command, ["--workdir", "run"])])


@pytest.mark.parametrize("number", SIGNALS)
def test_told_to_leave(tmp_path, monkeypatch, capsys, number):
    """Catches SIGTERM that ends a command without a word and leaves its partial folder, and Ctrl-C that does."""

    def work() -> None:
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    status, word = SIGNALS[number]
    before = signal.getsignal(number)
    assert run(monkeypatch, "prepare", work) == status
    assert capsys.readouterr().err == (
        f"{word}; nothing was written, start the same command again\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_signal_that_the_caller_ignores_stays_ignored(monkeypatch):
    """Catches a command under nohup, or in the background of a script, that Ctrl-C elsewhere ends."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(monkeypatch, "quickstart", lambda: os.kill(os.getpid(), signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_does_not_disturb_tidying_up(tmp_path, monkeypatch, capsys):
    """Catches an impatient second Ctrl-C that leaves the partial folder after all, with a traceback."""
    remove = files._remove

    def slowly(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        remove(path)

    def work() -> None:
        with files.new_folder(tmp_path / "out"):
            monkeypatch.setattr(files, "_remove", slowly)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    assert run(monkeypatch, "prepare", work) == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.startswith("interrupted")


def test_other_words_for_the_signal_are_not_believed(monkeypatch, capsys):
    """Catches a library that turns the interruption into its own error, told as a mistake of the user's."""

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise UserError("SentencePiece could not train") from None

    assert run(monkeypatch, "quickstart", work) == 143
    assert capsys.readouterr().err == "terminated; what was made stays in its folder\n"


def test_native_code_that_does_not_listen(tmp_path):
    """Catches a command that goes on for an hour after SIGTERM, in a library that never comes back to Python."""
    script = f"""
import os, signal, threading, time
from electra_jax import cli, files
from electra_jax.cli import commands, leaving
leaving.GRACE_S = 0.2
def deaf(options):
    with files.new_folder({str(tmp_path / "out")!r}) as folder:
        print("ready", flush=True)
        while True:
            try:
                time.sleep(1)
            except BaseException:
                pass
commands._COMMANDS["vocab"] = deaf
raise SystemExit(cli.main("vocab --kind bpe --size 9 --input x --output y".split()))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said == "terminated; nothing was written, start the same command again\n"
    assert list(tmp_path.iterdir()) == []


def test_threads_that_compile_do_not_turn_it_into_a_crash(tmp_path):
    """Catches exit status 139: the interpreter taken apart while JAX compiles in a thread."""
    script = """
import os, signal, sys, threading, time, types
from electra_jax.cli import commands
sys.modules["jax"] = types.ModuleType("jax")
def work(options):
    threading.Thread(target=time.sleep, args=(60,)).start()  # which Python would wait for
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
commands._COMMANDS["score"] = work
sys.argv[1:] = "score --task x --references y --predictions z".split()
sys.exit(commands.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")


def test_every_command_has_its_words():
    """Catches a command that is told to leave in the words of one that is no more."""
    assert set(leaving._KEPT) < set(commands._COMMANDS)


@pytest.mark.parametrize("command", ["prepare", "vocab"])
def test_the_real_command(tmp_path, command):
    """Catches workers that print tracebacks of their own, and a partial folder that a real SIGTERM leaves."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"word{i} and {i * 7919 % 10007} more" for i in range(200_000)))
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    rest = {
        "prepare": f"--tokenizer {tmp_path / 'vocab.txt'} --seq-len 16 --workers 2 --dedup exact",
        "vocab": "--kind wordpiece --size 90000",
    }
    arguments = [sys.executable, "-m", "electra_jax", command, "--input", str(text)]
    arguments += ["--output", str(tmp_path / "out"), *rest[command].split()]
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _busy(tmp_path, command, process.pid):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)  # as Slurm and containers do
        said = process.stderr.read().decode()
    assert process.returncode == 143, said
    assert said == "terminated; nothing was written, start the same command again\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt", "vocab.txt"]


def _busy(folder: Path, command: str, process: int) -> bool:
    if command == "prepare":
        return any(folder.glob(".out.partial-*"))
    times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(times[11]) > 1.5 * os.sysconf("SC_CLK_TCK")  # it has imported all, and counts words


# --- limits


def limited(tmp_path: Path, limit: str, command: str) -> tuple[int, str]:
    """Exit status and stderr of a command under a limit of the shell."""
    done = subprocess.run(
        ["bash", "-c", f"ulimit {limit}; exec {sys.executable} -m electra_jax {command}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("limit", "command", "said"),
    [
        ("-n 16", "prepare --seq-len 16 --workers 4 --tokenizer vocab.txt", "ulimit -n 4096"),
        ("-f 1", "prepare --seq-len 16 --workers 1 --tokenizer vocab.txt", "ulimit -f|too large|larger"),
        ("-f 1", "vocab --kind wordpiece --size 400", "larger than"),
        ("-v 1000000", "import --discriminator x --workdir out", "ulimit -v"),
    ],
)  # fmt: skip
def test_limits_of_the_shell(tmp_path, limit, command, said):
    """Catches tracebacks, aborts of native code, and half-written outputs under ulimit -n, -f and -v."""
    text = "\n\n".join(" ".join(f"w{i}x{j}" for j in range(30)) for i in range(1000))
    (tmp_path / "text.txt").write_text(text)
    words = [f"w{i}" for i in range(1000)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *words, "##x1", "##x2"]))
    if not command.startswith("import"):
        command += " --input text.txt --output out"
    status, told = limited(tmp_path, limit, command)
    assert status == 2, told
    assert re.fullmatch(rf"(note: .*\n)*error: .*({said}).*\n", told), told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt", "vocab.txt"]


def test_what_is_no_limit_keeps_its_traceback():
    """Catches a bug of ours told as a full disk: only what limits and disks do is said in their words."""
    assert limits.explained(ValueError("no such thing")) is None
    assert limits.explained(FileNotFoundError(2, "no such file")) is None
    wrapped = RuntimeError("while writing")
    wrapped.__cause__ = OSError(28, "No space left on device", "rows")
    assert (
        limits.explained(wrapped)
        == "rows: the disk is full; free some space and run the command again"
    )
