"""JSON that was changed by hand or damaged: every fault in one line."""

from typing import Any

import pytest

from electra_jax import records
from electra_jax.spec import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "thousands of digits"),
        (b"{", "is not JSON: .* line 1 column 2"),
        (b"\xff{}", "is not UTF-8 at byte 0"),
        (b"[1]", "holds a list; expected a JSON object"),
        (b"", "is not JSON"),
    ],
)
def test_what_is_no_object_is_one_line(tmp_path, text: bytes, message: str):
    """Catches RecursionError, the limit of digits and wrong bytes that reach the user as tracebacks."""
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(UserError, match=rf"x\.json .*{message}") as error:
        records.read(tmp_path / "x.json", "restore it")
    assert "\n" not in str(error.value) and str(error.value).endswith("; restore it")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (str, ["", "x"], [1, None, []]),
        (float, [1, 2.5], [True, "1", float("nan"), float("inf"), 10**400]),
        (records.Whole(1, 9), [1, 9], [0, 10, True, 1.0, 10**400]),
        (records.Name(), ["a", "a.b-c"], ["", ".", "..", "../a", "/a", "a/b", "a\\b", "a\0", 1]),
        (list[int], [[], [1]], [[1, "x"], {}, "ab", None]),
        (dict[str, list[str]], [{}, {"a": ["b"]}], [{"a": "b"}, {"a": [1]}, []]),
        (str | None, ["x", None], [1, ["x"]]),
        (Any, [1, None, {}], []),
    ],
)
def test_kinds(kind: Any, good: list[Any], bad: list[Any]):
    """Catches true that counts as 1, numbers out of range, names that lead out of a folder."""
    for value in good:
        assert records.check({"a": value, "other": 1}, {"a": kind}, "x.json") == {
            "a": value,
            "other": 1,
        }
    for value in bad:
        with pytest.raises(UserError, match=r"^x\.json is damaged: a") as error:
            records.check({"a": value}, {"a": kind}, "x.json")
        assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_all_faults_are_listed():
    """Catches errors that come one by one, and a field that may be absent refused for that."""
    kinds = {"a": int, "b": dict[str, int], "c": str, "d": int | None}
    with pytest.raises(UserError) as error:
        records.check({"a": "x", "b": {"k": {}}}, kinds, "x.json", "restore it")
    assert str(error.value) == (
        "x.json is damaged: a is 'x', expected int; b['k'] is a dict of 0, expected int; c is missing; restore it"
    )
