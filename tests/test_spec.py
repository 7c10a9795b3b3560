"""Options: config files by name, path and argument, overrides by type, and errors that name the fix."""

import dataclasses
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from electra_jax.spec import (
    UserError,
    apply_override,
    check_choice,
    check_range,
    from_config,
    load_config,
    nearest,
    shipped_configs,
    to_dict,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float


@dataclasses.dataclass(frozen=True)
class Outer:
    """One field of every kind that a section may hold."""

    steps: int
    rate: float
    name: str
    on: bool
    split: tuple[float, float, float]
    sizes: tuple[int, ...]
    inner: Inner
    limit: int | None = None


GOOD = {
    "steps": 3,
    "rate": 1,
    "name": "x",
    "on": True,
    "split": [0.85, 0.15, 0],
    "sizes": [1, 2],
    "inner": {"rate": 0.5},
}


def config() -> ConfigDict:
    """A small locked config."""
    made = ConfigDict(
        {
            "optim": {"peak_lr": 1e-3, "warmup": 10, "name": "adam"},
            "train": {"steps": 20, "on": False, "split": (0.85, 0.15, 0.0), "seed": None},
        }
    )
    return made.lock()


def test_a_section_becomes_a_dataclass():
    """Catches a conversion lost on the way: ints to floats, lists (of JSON) to tuples, nested sections."""
    made = from_config(Outer, GOOD, "outer")
    assert made == Outer(3, 1.0, "x", True, (0.85, 0.15, 0.0), (1, 2), Inner(0.5))
    assert type(made.rate) is float
    assert from_config(Outer, ConfigDict(GOOD), "outer") == made
    assert from_config(Outer, to_dict(made), "outer") == made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stesp": 3}, ["'outer.stesp'", "Did you mean 'outer.steps'"]),
        ({"steps": True}, ["outer.steps=True", "bool", "int"]),
        ({"steps": 3.0}, ["outer.steps=3.0", "float", "int"]),
        ({"rate": "1"}, ["outer.rate='1'", "str", "float"]),
        ({"rate": True}, ["outer.rate=True", "bool", "float"]),
        ({"rate": float("nan")}, ["outer.rate=nan", "finite"]),
        ({"on": 1}, ["outer.on=1", "int", "bool"]),
        ({"split": [0.5, 0.5]}, ["outer.split", "2 values", "expected 3"]),
        ({"split": [0.5, 0.5, "x"]}, ["outer.split[2]='x'", "float"]),
        ({"sizes": 3}, ["outer.sizes=3", "tuple"]),
        ({"inner": 3}, ["outer.inner=3", "section"]),
        ({"inner": {"rat": 1.0}}, ["'outer.inner.rat'", "'outer.inner.rate'"]),
        ({"limit": "3"}, ["outer.limit='3'", "int"]),
    ],
)
def test_a_wrong_section_is_refused(change: dict, expected: list[str]):
    """Catches a value of another type slipping into typed code, and messages that do not say where."""
    with pytest.raises(UserError) as error:
        from_config(Outer, GOOD | change, "outer")
    for part in expected:
        assert part in str(error.value)


def test_a_missing_key_is_named():
    """Catches a silent default for a key that has none."""
    section = {k: v for k, v in GOOD.items() if k != "steps"}
    with pytest.raises(UserError, match=r"outer\.steps is missing; expected int"):
        from_config(Outer, section, "outer")


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("optim.peak_lr=3e-4", "optim", "peak_lr", 3e-4),
        ("optim.peak_lr=1", "optim", "peak_lr", 1.0),
        ("optim.warmup=1e4", "optim", "warmup", 10_000),
        ("optim.warmup=1_000", "optim", "warmup", 1000),
        ("optim.name=a=b", "optim", "name", "a=b"),
        ("optim.name=", "optim", "name", ""),
        ("optim.name=3", "optim", "name", "3"),
        ("train.on=True", "train", "on", True),
        ("train.on=true", "train", "on", True),
        ("train.split=(1,0,0.)", "train", "split", (1, 0, 0.0)),
        ("train.split=.8,.1,.1", "train", "split", (0.8, 0.1, 0.1)),
        ("train.seed=3", "train", "seed", 3),
        ("train.seed=three", "train", "seed", "three"),
        ("train.seed=one, two", "train", "seed", ("one", "two")),
    ],
)
def test_overrides_keep_the_type(override: str, section: str, key: str, value: object):
    """Catches a number read as text, an int that becomes a float, a value cut at its second '=',
    and a column or classes that need quotes where the default is None."""
    made = config()
    apply_override(made, override)
    assert made[section][key] == value
    assert type(made[section][key]) is type(value)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Options whose value in the config is None."""

    word: str | None
    labels: tuple[str, ...] | None
    bounds: tuple[float, float] | None
    rate: float | None
    rates: tuple[float, ...]
    scheme: str | None


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("word=1", "1"),
        ("word=01", "01"),
        ("word=True", "True"),
        ("word='1'", "1"),
        ("word=a, b", "a, b"),
        ("word=None", None),
        ("scheme=None", None),
        ("scheme=bioes", "bioes"),
        ("labels=0,1", ("0", "1")),
        ("labels=(0, 1)", ("0", "1")),
        ("labels=1", ("1",)),
        ("labels=no, yes", ("no", "yes")),
        ("labels=('a, b', 'c')", ("a, b", "c")),
        ("bounds=0,5", (0.0, 5.0)),
        ("rate=1", 1.0),
        ("rate=1e-4", 1e-4),
        ("rates=1e-4", (1e-4,)),
        ("rates=1e-4,2e-4", (1e-4, 2e-4)),
    ],
)
def test_overrides_take_the_type_that_the_option_wants(override: str, value: object):
    """Catches a column named 1 or a class 0 refused for being a number, and None taken for a text."""
    nothing = dict.fromkeys(("word", "labels", "bounds", "rate"))
    made = ConfigDict({"data": nothing | {"rates": (), "scheme": "iob2"}}).lock()
    apply_override(made, f"data.{override}", {"data": Columns})
    key = override.partition("=")[0]
    assert made.data[key] == value and type(made.data[key]) is type(value)
    assert getattr(from_config(Columns, made.data, "data"), key) == value
    recorded = ConfigDict({"data": {**made.data, "labels": ["a"], "word": "0"}}).lock()  # from JSON
    apply_override(recorded, "data.labels=0,1", {"data": Columns})
    assert recorded.data.labels == ["0", "1"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("word=", "data.word is given nothing"),
        ("bounds=0", "has 1 values; expected 2"),
        ("bounds=a,b", "data.bounds[0]='a' is of type str; expected float"),
        ("rate=fast", "data.rate='fast' is of type str; expected float"),
    ],
)
def test_overrides_of_another_type_are_refused(override: str, expected: str):
    """Catches a text where a number is wanted that is found only when the run begins."""
    made = ConfigDict({"data": dict.fromkeys(("word", "labels", "bounds", "rate"))}).lock()
    with pytest.raises(UserError) as error:
        apply_override(made, f"data.{override}", {"data": Columns})
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("value", "interval", "said"),
    [
        (0, "[0, 1)", None),
        (1, "[0, 1)", "x=1 is out of range; it must be in [0, 1)"),
        (0, "(0, inf)", "x=0 is out of range; it must be above 0"),
        (-2, "[-1, inf)", "x=-2 is out of range; it must be at least -1"),
        (1, "(0, 1]", None),
    ],
)
def test_ranges(value: float, interval: str, said: str | None):
    """Catches an end of an interval on the wrong side, and a range that is not said."""
    if said is None:
        check_range("x", value, interval)
        return
    with pytest.raises(UserError) as error:
        check_range("x", value, interval)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.peek_lr=1", "Did you mean 'optim.peak_lr'"),
        ("peak_lr=1", "Did you mean 'optim.peak_lr'"),
        ("train.peak_lr=1", "Did you mean 'optim.peak_lr'"),
        ("optmi.warmup=1", "Did you mean 'optim.warmup'"),
        ("optim.warmup.x=1", "unknown config key 'optim.warmup.x'"),
        ("optim=1", "is a section"),
        ("optim.warmup", "has no '='"),
        ("optim.warmup=1.5", "of type float; expected int"),
        ("optim.warmup=ten", "expected int, such as 10"),
        ("optim.warmup=True", "of type bool; expected int"),
        ("optim.peak_lr=1e999", "not finite"),
        ("optim.peak_lr=", "expected float"),
        ("optim.peak_lr=__import__('os').getcwd()", "expected float"),
        ("train.on=1", "expected true or false"),
        ("train.split=0.5", "of type float; expected tuple"),
        ("=3", "unknown config key ''"),
    ],
)
def test_a_wrong_override_is_refused(override: str, expected: str):
    """Catches a mistyped key that trains for a day with the default, and a value of another type."""
    made = config()
    with pytest.raises(UserError) as error:
        apply_override(made, override)
    assert expected in str(error.value)
    assert made == config()


def write(folder: Path, text: str) -> str:
    """A config file with this text; returns its path."""
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


HEAD = "from ml_collections import ConfigDict\n"


def test_a_config_file_takes_an_argument(tmp_path: Path):
    """Catches the argument after ':' being lost, or taken for part of the path."""
    path = write(
        tmp_path, HEAD + "def get_config(size='1'):\n  return ConfigDict({'a': {'b': int(size)}})\n"
    )
    assert load_config(path).a.b == 1
    assert load_config(f"{path}:7").a.b == 7
    assert load_config(f"{path}:7", ["a.b=9"]).a.b == 9
    with pytest.raises(AttributeError):
        load_config(path).a.c = 1  # locked


@pytest.mark.parametrize(
    ("text", "arg", "expected"),
    [
        ("def get_config(:\n", "", "line 1: SyntaxError"),
        ("x = 1\n", "", "has no function get_config"),
        ("import nosuchmodule\n", "", "line 1: ModuleNotFoundError"),
        ("def get_config():\n  return {}\n", "", "returned dict; expected a ConfigDict"),
        ("def get_config():\n  x = 1\n  return y\n", "", "line 3: NameError"),
        ("def get_config():\n  return {}\n", ":big", "cannot be called with the argument 'big'"),
        ("def get_config(size):\n  return {}\n", "", "cannot be called with no argument"),
        ("def get_config(size):\n  return {'a': 1}[size]\n", ":b", "line 2: KeyError: 'b'"),
        ("import sys\nsys.exit(3)\n", "", "line 2: SystemExit: 3"),
        ("class Odd(BaseException):\n  pass\nraise Odd('a\\nb')\n", "", "line 3: Odd: a b"),
        ("def get_config():\n  return get_config()\n", "", "line 2: RecursionError"),
        ("compile('x = (', 'other.py', 'exec')\n", "", "line 1: SyntaxError"),
        ("class E(Exception):\n  def __str__(self):\n    return 1\nraise E\n", "", "line 4: E"),
    ],
)
def test_a_faulty_config_file_is_one_line(tmp_path: Path, text: str, arg: str, expected: str):
    """Catches a traceback for a mistake in the user's own config file."""
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_config(path + arg)
    assert expected in str(error.value)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_is_named_however_the_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches `--config mine.py` without the line, which Python names by the absolute path."""
    for text in ("def get_config():\n  return 1 / 0\n", "\nx = (\n"):
        write(tmp_path, text)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"^config file mine.py, line 2: \w+: [^(]*(\([^(]*)?$"):
            load_config("mine.py")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smal", "Did you mean 'small'"),
        ("nofile.py", "does not exist"),
        ("some/folder", "does not exist"),
        ("", "unknown config ''"),
        ("tiny:1", "cannot be called with the argument '1'"),
    ],
)
def test_an_unknown_config_is_refused(name: str, expected: str):
    """Catches a name that quietly loads another recipe."""
    with pytest.raises(
        UserError, match=r"base, electra-mini, finetune, .*, quickstart, small, tiny|get_config"
    ) as error:
        load_config(name)
    assert expected in str(error.value)


def test_configs_ship_with_the_package():
    """Catches a wheel or an editable install that cannot find `--config small`."""
    assert sorted(shipped_configs()) == [
        "base",
        "electra-mini",
        "finetune",
        "large",
        "mini",
        "modern-base",
        "modern-large",
        "modern-small",
        "nvidia",
        "quickstart",
        "small",
        "tiny",
    ]


def test_nearest_is_silent_when_nothing_is_close():
    """Catches absurd suggestions."""
    assert nearest("pretain", ["prepare", "pretrain"]) == "pretrain"
    assert nearest("zzz", ["prepare", "pretrain"]) is None


def test_a_wrong_choice_lists_the_right_ones():
    """Catches a string option that is compared without being checked."""
    check_choice("model.tying", "none", ("none", "all"))
    with pytest.raises(UserError, match=r"model\.tying.*'nnoe'.*'none'.*all, none"):
        check_choice("model.tying", "nnoe", ("none", "all"))
