"""A cloud, a cluster and a scheduler in a folder, for scripts that would rent real ones."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class World:
    """`state` is what the fakes remember; see tests/launch/fakes."""

    state: Path
    home: Path

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """One command of a launch script, to its end."""
        with self.start(script, *arguments, **variables) as process:
            out, _ = process.communicate(timeout=60)
            return subprocess.CompletedProcess(process.args, process.returncode, out, "")

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """The same in the background."""
        env = {
            "PATH": f"{ROOT / 'tests' / 'launch' / 'fakes'}:/usr/bin:/bin",
            "HOME": str(self.home),
            "FAKE": str(self.state),
            "ELECTRA_POLL_SECONDS": "0.02",
            "ELECTRA_TAIL_SECONDS": "0.02",
            **variables,
        }
        return subprocess.Popen(
            ["bash", str(ROOT / "launch" / script), *arguments],
            env=env,
            cwd=self.home,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_for(self, process: subprocess.Popen, text: str) -> None:
        """Reads a process's output up to a line with this text; fails when it ends before."""
        seen = []
        while text not in (line := process.stdout.readline()):
            seen.append(line)
            assert line, f"ended without {text!r}: {''.join(seen)}"

    def run_shell(self, line: str) -> None:
        """A line of shell, whatever becomes of it."""
        subprocess.run(["bash", "-c", line], capture_output=True)

    def program(self, *words: str | int) -> None:
        """What the next starts of electra-jax do; see tests/launch/fakes/electra-jax."""
        (self.state / "program").write_text("".join(f"{word}\n" for word in words))

    def fail_at(self, program: str, *calls: int, how: str = "fail_at") -> None:
        """These calls of a program fail ("fail_at"), or work and lose their answer ("lose_at")."""
        (self.state / f"{program}.{how}").write_text("".join(f"{call}\n" for call in calls))

    def lines(self, name: str) -> list[str]:
        """A record of the fakes: calls, starts, created, deleted."""
        path = self.state / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def world(tmp_path) -> World:
    """An empty project."""
    if os.name != "posix" or not Path("/usr/bin/flock").exists():
        pytest.skip("the launch scripts are for Linux")
    world = World(tmp_path / "state", tmp_path / "home")
    world.state.mkdir()
    world.home.mkdir()
    return world
