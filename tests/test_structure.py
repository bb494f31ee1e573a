"""The house has nine floors: every import runs down, none in a circle; heavy libraries stay where they are used."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import distill3d

PACKAGE = Path(__file__).parents[1] / "distill3d"
FLOORS = [  # from the top; a module may import from its own floor and from those below
    {"cli"},
    {"evaluate", "stylize", "sweep", "explain", "publish", "morph"},
    {"recipe", "builtin", "testing"},
    {"preparation", "assembly", "models"},
    {"runs", "showcase", "health", "training", "packs"},
    {"methods", "anchors"},
    {"objectives", "tiny", "scorers", "plugins", "report", "export"},
    {"volume", "renderer", "scorer", "views", "evaluation", "blending", "stylisation"},
    {
        "cameras",
        "styles",
        "config",
        "options",
        "schedule",
        "hookspecs",
        "draws",
        "errors",
        "files",
        "provenance",
        "state_dicts",
        "precision",
        "licences",
        "run_files",
    },
]
FLOOR_OF = {name: i for i, floor in enumerate(FLOORS) for name in floor}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room(path):
    """The file or folder directly inside the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_of(text, package="distill3d"):
    """Full name of everything that the import statements of a file name, wherever in the file they stand.

    `from a import b` names `a.b`: whether b is a module or a name in one, its room is a's second part.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def imports(path):
    package = ".".join(["distill3d", *path.relative_to(PACKAGE).parts[:-1]])
    return list(modules_of(path.read_text(encoding="utf-8"), package))


def rooms_in(modules):
    """The rooms of the package among full names; a name that the package hands on counts as its home's."""
    rooms = set()
    for module in modules:
        first, *rest = module.split(".")
        if first == "distill3d" and rest and not rest[0].startswith("__"):
            home = distill3d._HOMES.get(rest[0], f"distill3d.{rest[0]}")
            rooms.add(home.split(".")[1])
    return rooms


def first_circle(edges):
    """A list of rooms, the last of which imports the first, or None. Depth first; `edges` is name to names."""
    done = set()

    def search(name, trail):
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            return None
        found = next(filter(None, (search(n, [*trail, name]) for n in sorted(edges.get(name, ())))), None)
        done.add(name)
        return found

    return next(filter(None, (search(name, []) for name in sorted(edges))), None)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down(path):
    own = FLOOR_OF[room(path)]
    above = [name for name in rooms_in(imports(path)) if FLOOR_OF[name] < own]
    assert not above, f"{path.name} imports what is above it: {above}"


def test_no_rooms_import_each_other_in_a_circle_of_any_length():
    edges = {room(path): set() for path in MODULES}
    for path in MODULES:
        edges[room(path)] |= rooms_in(imports(path)) - {room(path)}
    assert edges["cli"] >= {"recipe"}  # else nothing was read
    circle = first_circle(edges)
    assert circle is None, " > ".join(circle)


def test_no_modules_import_each_other_in_a_circle_of_any_length():
    """Inside a room too. An import in a function counts: it hides a circle, it does not undo it."""
    named = {".".join(["distill3d", *p.relative_to(PACKAGE).with_suffix("").parts]): p for p in MODULES}
    named = {name.removesuffix(".__init__"): path for name, path in named.items()}
    edges = {}
    for name, path in named.items():
        reached = {m if m in named else m.rpartition(".")[0] for m in imports(path)}
        edges[name] = (reached & set(named)) - {name}
    assert edges["distill3d.recipe"]
    circle = first_circle(edges)
    assert circle is None, " > ".join(circle)


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        ({"a": ["b"], "b": ["a"]}, ["a", "b"]),
        ({"a": ["b", "c"], "b": ["c"], "c": ["d"], "d": ["b"]}, ["b", "c", "d"]),
        ({"x": ["x"]}, ["x"]),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, None),  # two ways to one place are no circle
        ({"a": ["outside"]}, None),
    ],
)
def test_a_made_up_circle_is_found(edges, circle):
    assert first_circle(edges) == circle


@pytest.mark.parametrize(
    ("statement", "rooms"),
    [
        ("from distill3d import recipe", {"recipe"}),
        ("from distill3d import hookspecs, views as v", {"hookspecs", "views"}),
        ("from distill3d import LDLoss", {"objectives"}),
        ("import distill3d.training.loop as loop", {"training"}),
        ("from distill3d.cli.run import app", {"cli"}),
        ("def late():\n    from distill3d import runs", {"runs"}),
        ("if TYPE_CHECKING:\n    from distill3d.methods import Method", {"methods"}),
        ("from . import trainer", {"training"}),
        ("from .. import recipe", {"recipe"}),
        ("from ..recipe import distill", {"recipe"}),
        ("import distill3d\nfrom distill3d import __version__\nimport torch\nimport distill3d_eg3d", set()),
    ],
)
def test_every_form_of_import_counts(statement, rooms):
    """As seen from distill3d/training/."""
    assert rooms_in(modules_of(statement, "distill3d.training")) == rooms


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    assert {room(path) for path in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_what_stands_outside_imports_no_private_name(folder):
    files = sorted((PACKAGE.parent / folder).rglob("*.py"))
    assert files
    for path in files:
        named = [m for m in modules_of(path.read_text(encoding="utf-8"), "") if m.startswith("distill3d.")]
        private = [m for m in named if any(part.startswith("_") and part != "__version__" for part in m.split("."))]
        assert not private, f"{path.name}: {private}"


def test_the_core_imports_no_plugin():
    assert not [m for p in MODULES for m in imports(p) if m.startswith(("distill3d_", "plugins"))]


def test_one_room_of_a_run_imports_diffusers():
    """The scripts that make the embedded weights build the same networks."""
    users = {p.relative_to(PACKAGE).as_posix() for p in MODULES for m in imports(p) if m.split(".")[0] == "diffusers"}
    assert {u.split("/")[0] for u in users if not u.startswith("tiny/train/")} == {"scorers"}


def test_only_the_command_line_prints():
    for path in MODULES:
        if room(path) == "cli" or path.is_relative_to(PACKAGE / "tiny" / "train"):
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"], path


def test_only_the_trainers_step_calls_backward():
    for path in MODULES:
        if path == PACKAGE / "training" / "step.py" or path.is_relative_to(PACKAGE / "tiny" / "train"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        assert "backward" not in names, path


def test_nothing_is_unpickled_and_what_torch_wrote_is_read_as_weights_only():
    for path in MODULES:
        modules = {m.split(".")[0] for m in imports(path)}
        assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}, path
        for call in calls_of_torch_load(path):
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords), path
            assert path.name == "state_dicts.py", path


def calls_of_torch_load(path):
    """Where a file written by torch is read."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]


def child(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    return done.stdout.strip()


def test_the_package_and_its_help_import_no_torch():
    code = (
        "import sys, distill3d; assert 'torch' not in sys.modules\n"
        "from typer.testing import CliRunner; from distill3d.cli import app\n"
        "assert 'distil' in CliRunner().invoke(app, ['--help']).output.lower()\n"
        "assert CliRunner().invoke(app, ['styles']).exit_code == 0\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert child(code) == "[]"


def test_every_public_name_can_be_imported():
    for name in distill3d.__all__:
        assert getattr(distill3d, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        distill3d.nonsense  # noqa: B018
