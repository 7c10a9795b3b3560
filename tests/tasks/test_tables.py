"""Rows by column name: quoting, line numbers, JSON in two forms, wrong counts of columns."""

import gzip

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks.files import tables


def test_tsv_has_no_quoting(made):
    """Catches a reader that swallows rows between two quote characters, as csv does by default."""
    path = made("a.tsv", 'a\tb\n"x 1\ty\nz"\tw\r\n')
    assert list(tables.rows(path)) == [(2, {"a": '"x 1', "b": "y"}), (3, {"a": 'z"', "b": "w"})]


def test_csv_is_quoted(made):
    """Catches CSV split at every comma, and lines counted as rows where a field holds a line feed."""
    path = made("a.csv", 'a,b\n"x, ""y""\nz",1\nq,2\n')
    assert list(tables.rows(path)) == [
        (2, {"a": 'x, "y"\nz', "b": "1"}),
        (4, {"a": "q", "b": "2"}),
    ]


def test_long_fields(made):
    """Catches a long document refused by the csv module's own limit."""
    text = "word " * 40_000
    assert next(tables.rows(made("a.csv", f"a,b\n{text},1\n")))[1]["a"] == text


@pytest.mark.parametrize(
    "text", ['{"a": 1}\n\n{"a": 2}\n', '[{"a": 1},\n {"a": 2}]'], ids=["lines", "array"]
)
def test_json(made, text):
    """Catches one of the two forms of JSON tables not read."""
    assert [row for _, row in tables.rows(made("a.json", text))] == [{"a": 1}, {"a": 2}]


def test_byte_order_mark_and_gzip(tmp_path):
    """Catches MRPC's byte-order mark left in the name of its first column, and names like a.tsv.gz."""
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress("\ufeffQuality\tx\n1\ty\n".encode()))
    assert list(tables.rows(str(path))) == [(2, {"Quality": "1", "x": "y"})]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "a\tb\nx\ty\nz\n", r"a\.tsv:3: found 1 columns; expected 2: a, b"),
        ("a.csv", "a,b\nx,y,z\n", r"a\.csv:2: found 3 columns; expected 2"),
        ("a.csv", 'a,b\n"x,y\n', r"a\.csv:2: not CSV"),
        ("a.tsv", "a\ta\nx\ty\n", "the header names 'a' twice"),
        ("a.tsv", "a\tb\n", "has no rows"),
        ("a.tsv", "", "is empty"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', r"a\.jsonl:2: not JSON at column"),
        ("a.jsonl", "3\n", r"a\.jsonl:1: found a int; expected a JSON object"),
        ("a.json", "[1]", "entry 1 is a int"),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": ' + "[" * 200_000 + "\n",
            r"a\.jsonl:2: the JSON is nested too deep",
        ),
        ("a.json", "[" * 200_000, r"a\.json:1: the JSON is nested too deep"),
        ("a.jsonl", f'{{"a": {"7" * 5000}}}\n', r"a\.jsonl:1: a number .* too many digits"),
        ("a.json", f'[{{"a": {"7" * 5000}}}]\n', r"a\.json:1: a number .* too many digits"),
    ],
)
def test_what_is_wrong(made, name, text, said):
    """Catches a broken row that goes unnoticed, or an error that does not name its line."""
    with pytest.raises(UserError, match=said):
        list(tables.rows(made(name, text)))


def test_a_header_that_is_data(made):
    """Catches a file without a header whose first row silently was it, with no word of the cause."""
    row = next(tables.rows(made("a.tsv", "a fine film\t1\na dull one\t0\n")))[1]
    with pytest.raises(
        UserError, match=r"Found: 'a fine film', '1'.*Line 1 was read as the header"
    ):
        tables.column("a.tsv", row, ("text",))
    row = next(tables.rows(made("a.jsonl", '{"a": 1}\n')))[1]
    with pytest.raises(UserError) as error:
        tables.column("a.jsonl", row, ("text",))
    assert "header" not in str(error.value)


def test_broken_rows_can_be_left_out(made):
    """Catches QQP's few broken rows stopping everything, or vanishing without a word."""
    broken: list[str] = []
    rows = list(tables.rows(made("a.tsv", "a\tb\nx\ny\tz\n"), (), broken))
    assert rows == [(3, {"a": "y", "b": "z"})]
    assert len(broken) == 1 and ":2:" in broken[0]


def test_a_column_by_any_of_its_names():
    """Catches a missing column without the nearest name, or the wrong spelling chosen."""
    assert tables.column("f", {"premise": 1, "label": 2}, ("sentence1", "premise")) == "premise"
    with pytest.raises(UserError, match=r"no column 'sentense' .*Did you mean 'sentence'\?"):
        tables.column("f", {"sentence": 1, "label": 2}, ("sentense", "x"))


def test_half_a_surrogate_pair(made):
    """Catches half a character, which no tokenizer takes, ending in a traceback."""
    path = made("a.jsonl", '{"a": ["x\\ud800y", {"\\uDC00": "\\ud83d\\ude00"}]}\n')
    assert next(tables.rows(path))[1] == {"a": ["x\ufffdy", {"\ufffd": "\U0001f600"}]}


def test_what_the_first_line_may_be(made):
    """Catches a line of data, or a CSV divided by semicolons, with no word on what it was taken for."""
    twice = made("a.tsv", "so\tso\nx\ty\n")
    with pytest.raises(UserError, match="names 'so' twice.*Line 1 was read as the header"):
        list(tables.rows(twice))
    row = next(tables.rows(made("b.csv", "text;label\na;b\n")))[1]
    with pytest.raises(UserError, match="one column: a .csv is divided at commas"):
        tables.column("b.csv", row, ("text",))
