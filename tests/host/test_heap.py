"""Memory kept from step to step, seen by the pages that the kernel had to supply."""

import subprocess
import sys

import pytest

STEP = """
import resource, sys
from electra_jax.host import heap
if sys.argv[1] == "kept":
    assert heap.keep_freed_memory()
import jax, jax.numpy as jnp
many = jax.jit(lambda x: jax.lax.optimization_barrier(jnp.sin(x)).sum())  # a temporary of x's size
x = jnp.ones((64, 1 << 18))
pages = []
for _ in range(60):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(many(x))
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# Something small in a freed block makes an early step take a new one, until there are enough: the median after that.
print(sorted(pages[-9:])[4])
"""


def pages(how: str, **environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", STEP, how], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.slow
def test_a_step_allocates_no_new_pages(monkeypatch):
    """Catches a setting that glibc refuses, or that comes too late or not for the thread that allocates."""
    assert pages("default") > 10_000  # 64 MiB of pages of 4 KiB, so the measurement sees them
    assert pages("kept") < 1_000


def test_the_user_s_own_settings_stand(monkeypatch):
    """Catches overriding somebody's MALLOC_ variables."""
    from electra_jax.host import heap

    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not heap.keep_freed_memory()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has glibc, whose malloc_trim this is"
)
def test_what_a_compiler_took_goes_back():
    """Catches freed memory that stays when it is asked to go: blocks between others that are in use."""
    script = """
from electra_jax.host import heap, resident
assert heap.keep_freed_memory()
blocks = [bytearray(1 << 20) for _ in range(200)]
del blocks[::2]
before = resident.now()
heap.give_back()
print((before - resident.now()) >> 20)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={})
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 80
