"""Raw text on a bucket: globs, folders of outputs, each file once, in order; errors name the URL."""

from pathlib import Path

import pytest

from electra_jax import remote
from electra_jax.spec import UserError
from electra_jax.text.sources import buckets, documents

NAMES = ("a/x1.txt", "a/x2.txt", "a/b/x3.txt", "a/y.jsonl", "out/_SUCCESS", "out/part-00000.txt")


@pytest.fixture
def url(either_bucket: str) -> str:
    """A folder on a bucket with text, and an output of Spark."""
    for name in NAMES:
        text = '{"text": "one"}\n' if name.endswith("l") else f"the text of {name}\n"
        remote.write(f"{either_bucket}/c/{name}", b"" if name.endswith("S") else text.encode())
    return f"{either_bucket}/c"


def test_patterns_on_a_bucket_are_those_of_a_disk(url: str, tmp_path: Path):
    """Catches a file lost or read twice, another order than on a disk, and copies that are left behind."""
    here = tmp_path / "here.txt"
    here.write_text("local\n")
    patterns = [f"{url}/a/*.txt", f"{url}/a/**/*.txt", f"{url}/a/x1.txt", f"{url}/out", str(here)]
    with buckets.copied(patterns, [f"{url}/a/y.jsonl"], ()) as (inputs, valid, none):
        paths = documents.expand(inputs)
        found = [document[0] for path in paths for document in documents.read(path)]
        assert documents.expand(valid)[0].endswith("/c/a/y.jsonl") and none == []
        copy = Path(paths[0])
    expected = ["a/b/x3.txt", "a/x1.txt", "a/x2.txt", "out/part-00000.txt"]
    assert sorted(found) == sorted([f"the text of {name}" for name in expected] + ["local"])
    assert [text for text in found if text != "local"] == [f"the text of {n}" for n in expected]
    assert not copy.exists()


def test_what_is_wrong_is_said_with_the_url(url: str):
    """Catches an error that names a copy nobody has seen, and a pattern that names nothing."""
    remote.write(f"{url}/bad/z.txt", b"\xff\xfe\xfa\n")
    with (
        pytest.raises(UserError, match=f"{url}/bad/z.txt"),
        buckets.copied([f"{url}/bad/*"]) as (p,),
    ):
        documents.check(documents.expand(p))
    nothing = pytest.raises(UserError, match=f"'{url}/none/.*' matches no file on the bucket")
    with nothing, buckets.copied([f"{url}/none/*.txt"]):
        pass
    with (
        pytest.raises(UserError, match=f"{url}/a' names folders"),
        buckets.copied([f"{url}/a"]) as (p,),
    ):
        documents.expand(p)


def test_local_patterns_need_no_bucket(monkeypatch: pytest.MonkeyPatch):
    """Catches a look at a bucket, or a copy, where all text is on this machine."""
    monkeypatch.setattr(remote, "scratch", None)
    with buckets.copied(["a*.txt", "tfds:x"], ()) as lists:
        assert lists == (["a*.txt", "tfds:x"], [])
