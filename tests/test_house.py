"""Keeps the picture of the house true: imports point one way, files stay small, help stays light."""

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_jax.objective import registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "electra_jax"

# Room (or file at the top) -> exactly what it imports. Nothing reaches back; skipping a room is allowed.
EDGES: dict[str, str] = {
    "__init__": "",
    "activity": "",
    "ops": "",
    "spec": "",
    "files": "spec",
    "model": "ops spec",
    "quantities": "spec",
    "records": "spec",
    "userfile": "spec",
    "host": "activity files spec",
    "schemes": "files spec",
    "answers": "files schemes spec",
    "remote": "answers files schemes spec",
    "text": "files remote spec",
    "data": "activity answers files records remote spec text",
    "tasks": "files spec text",
    "learn": "answers data files host ops records remote spec",
    "objective": "data learn model ops quantities spec text userfile",
    "workdir": "answers files learn model records remote spec userfile",
    "doctor": "records remote spec workdir",
    "pretrain": "answers data doctor files host learn model objective ops "
    "quantities spec text userfile workdir",
    "bench": "data learn pretrain spec text",
    "convert": "data files learn model objective pretrain records remote spec text workdir",
    "plan": "data host learn model pretrain quantities remote spec text",
    "verdict": "data learn pretrain spec text workdir",
    "finetune": "convert files host learn model objective ops pretrain records "
    "remote spec tasks text userfile workdir",
    "scoring": "convert data finetune learn model objective ops records remote spec text workdir",
    "quickstart": "files spec text verdict",
    "cli": "bench convert data doctor files finetune host plan pretrain quickstart "
    "remote schemes scoring spec text userfile",
    "__main__": "cli",
}
FORBIDDEN = {"torch", "transformers", "tensorflow", "pytest"}
LONGEST = 400  # lines of a file; a longer one has a second sentence in it that should move out
LONGEST_FUNCTION = 60  # lines
FULLEST = 20  # files of code in a folder
WIDEST = 120  # columns of the docs' prose
HEAVY = {"jax", "numpy", "flax", "ml_collections", "tensorflow_datasets", "tokenizers", "orbax"}


def sources() -> dict[str, str]:
    """Path inside the package -> source."""
    files = (p for p in PACKAGE.rglob("*.py") if "configs" not in p.relative_to(PACKAGE).parts[:1])
    return {p.relative_to(PACKAGE).as_posix(): p.read_text() for p in sorted(files)}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module a file imports, anywhere in it, with the line; relative imports start with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value), node.lineno


def complaints(files: dict[str, str]) -> list[str]:
    """What breaks the rules of the house, one line each."""
    found = []
    for path, text in files.items():
        room = path.partition("/")[0].removesuffix(".py")
        if room not in EDGES:
            found.append(f"{path}: {room} is no room of the table in tests/test_house.py")
            continue
        tree = ast.parse(text)
        doc = ast.get_docstring(tree)
        if not doc or not doc.splitlines()[0].rstrip().endswith((".", ":")):
            found.append(f"{path}: the module docstring does not begin with a sentence on one line")
        if text.count("\n") > LONGEST:
            found.append(f"{path}: {text.count(chr(10))} lines, more than {LONGEST}")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and _lines(node) > LONGEST_FUNCTION:
                found.append(
                    f"{path}:{node.lineno}: {node.name} has {_lines(node)} lines, more than {LONGEST_FUNCTION}"
                )
        for name, line in imports(tree):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package in FORBIDDEN:
                found.append(f"{path}:{line}: imports {package}")
            elif name.startswith("."):
                found.append(f"{path}:{line}: relative import; write electra_jax.<room>")
            elif package == "electra_jax" and target not in {
                "__version__",
                room,
                *EDGES[room].split(),
            }:
                found.append(f"{path}:{line}: {room} may not import {target or 'electra_jax'}")
    return found


def _lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def modules(files: dict[str, str]) -> dict[str, set[str]]:
    """Module of the package ("room.file") -> the modules it imports."""
    name_of = {
        path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files
    }
    there = set(name_of.values())
    found: dict[str, set[str]] = {}
    for path, text in files.items():
        named = {
            name.partition(".")[2] for name, _ in imports(ast.parse(text)) if "electra_jax." in name
        }
        # An import names a module, or something in one.
        modules = {name if name in there else name.rpartition(".")[0] for name in named}
        found[name_of[path]] = (modules & there) - {name_of[path]}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for module in graph.get(waiting.pop(), set()) - seen:
                seen.add(module)
                waiting.append(module)
        return seen

    far = {module: reached(module) for module in graph}
    groups = {
        frozenset(other for other in far[module] if module in far.get(other, set()))
        for module in graph
        if module in far[module]
    }
    return sorted(sorted(group) for group in groups)


def test_the_edges_are_exactly_those():
    """Catches a room that imports one more, and a table that allows what no room needs."""
    found: dict[str, set[str]] = {}
    for module, others in modules(sources()).items():
        room = module.partition(".")[0]
        found.setdefault(room, set()).update(other.partition(".")[0] for other in others)
    found = {room: others - {room} for room, others in found.items()}
    assert {room: " ".join(sorted(others)) for room, others in found.items()} == EDGES


def test_no_circles():
    """Catches two files, of one room even, that cannot be understood one after the other."""
    assert circles(modules(sources())) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]


def test_no_folder_is_full():
    """Catches a folder in which nothing is found any more."""
    folders = [path.rpartition("/")[0] for path in sources() if not path.endswith("__init__.py")]
    assert {name: folders.count(name) for name in folders if folders.count(name) > FULLEST} == {}


def test_the_docs_are_narrow():
    """Catches prose that a terminal or a diff breaks anywhere; tables and code may be wider."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("launch/*.md")]
    found = []
    for page in pages:
        code = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if len(line) > WIDEST and not code and not line.lstrip().startswith("|"):
                found.append(f"{page.relative_to(ROOT)}:{number}: {len(line)} columns")
    assert found == []


def test_the_rules_hold():
    """Catches a room that reaches back, a forbidden import, a file that has outgrown its sentence."""
    assert complaints(sources()) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (
            "ops/x.py",
            '"""A."""\nfrom electra_jax.model import layers\n',
            "ops may not import model",
        ),
        (
            "data/x.py",
            '"""A."""\nfrom electra_jax import objective\n',
            "data may not import objective",
        ),
        (
            "text/x.py",
            '"""A."""\nimport electra_jax.pretrain.loop\n',
            "text may not import pretrain",
        ),
        (
            "pretrain/x.py",
            '"""A."""\ndef f():\n  from electra_jax import convert\n',
            "may not import",
        ),
        ("spec.py", '"""A."""\nfrom . import files\n', "relative import"),
        ("model/x.py", '"""A."""\nimport torch.nn\n', "imports torch"),
        ("model/x.py", '"""A."""\nif True:\n  from transformers import AutoModel\n', "imports tr"),
        ("data/x.py", '"""A."""\nimportlib.import_module("tensorflow")\n', "imports tensorflow"),
        ("attic/x.py", '"""A."""\n', "no room of the table"),
        ("ops/x.py", "import jax\n", "docstring"),
        ("ops/x.py", '"""A."""\n' + "x = 1\n" * 400, "more than 400"),
        ("ops/x.py", '"""A."""\ndef f():\n' + "  x = 1\n" * 60, "f has 61 lines"),
    ],
)
def test_a_broken_rule_is_seen(path: str, text: str, expected: str):
    """Catches a checker that lets violations through: nested, spelled otherwise or built from strings."""
    found = complaints({path: text})
    assert len(found) == 1
    assert expected in found[0]


def test_an_objective_is_known_in_its_room_alone():
    """Catches an objective's name, or an option of one, in code that should ask the objective."""
    known = {*registry.KNOWN} | {
        f.name for name in registry.KNOWN for f in dataclasses.fields(registry.options_of(name))
    }
    theirs = {
        "text/classes.py",
        "convert/electra_config.py",
        "convert/electra_names.py",
        "convert/formats/tf1_names.py",
        "model/options.py",
    }  # model types of transformers, and the families of `model.family`
    common = {"sampler", "temperature", "frozen"}  # words of others, too
    found = [
        f"{path}:{node.lineno}: {node.value}"
        for path, text in sources().items()
        if not path.startswith("objective/") and path not in theirs
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.removeprefix("objective.") in known - common
    ]
    assert found == []


def test_the_map_is_the_house():
    """Catches a file that the map in docs/architecture.md does not show, and one that it shows and is gone."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = page.partition("## Rooms")[2].split("```")[1]
    shown = set(re.findall(r"\b\w+\.py\b", picture))
    there = {Path(path).name for path in sources()} - {"__init__.py", "__main__.py"}
    assert shown == there


def test_help_is_light():
    """Catches a heavy import at the top of the room cli or of the package: help would take seconds."""
    command = [sys.executable, "-X", "importtime", "-m", "electra_jax", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "electra_jax.cli.flags" in loaded
    assert loaded & HEAVY == set()


def test_tasks_load_no_jax():
    """Catches a module of tasks/ that imports JAX, or a room that does: scores and data would need it."""
    modules = [
        "electra_jax." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path in sources()
        if path.startswith("tasks/")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted({'jax', 'flax', 'optax', 'orbax'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(modules) > 20 and result.stdout.split() == []


def test_a_kind_is_asked_by_no_name():
    """Catches a branch by the kind of a task outside the kinds' own files."""
    branch = re.compile(r"(?<!dtype\.)\bkind (==|!=|in \(|not in \()|\[\w+\.kind\]")
    rooms = ("finetune/", "tasks/", "convert/")
    found = [
        f"{path}: {line.strip()}"
        for path, text in sources().items()
        if path.startswith(rooms) and not path.startswith(("finetune/kinds/", "convert/formats/"))
        for line in text.splitlines()
        if branch.search(line)
    ]
    assert found == []


def test_no_paths_of_one_machine():
    """Catches a file that works on the author's machine only."""
    places = ["/" + name + "/" for name in ("work", "root", "tmp")]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".gz", ".safetensors", ".npz"} or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found += [f"{name}:{number}: {place}" for place in places if place in line]
    assert found == []


def test_every_test_names_its_bug():
    """Catches a test whose purpose nobody wrote down."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef)
                and node.name.startswith("test_")
                and not ast.get_docstring(node)
            ):
                found.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert found == []


def test_no_wall_clock():
    """Catches a duration or an expiry measured by a clock that jumps when somebody sets it."""
    wall = re.compile(r"\btime\.time(_ns)?\b|\bdatetime\b|from time import")
    assert [path for path, text in sources().items() if wall.search(text)] == []


def test_tests_named_in_the_docs_exist():
    """Catches a table of faults that promises a test nobody can run."""
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    files = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 10
    assert sorted(named - there) + [name for name in files if not (ROOT / name).exists()] == []
