"""The house has seven floors: every import runs down, none in a circle; heavy libraries stay where they are used."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "distill3d"
FLOORS = [  # from the top; a module may import from its own floor and from those below
    {"cli"},
    {"recipe", "builtin", "testing"},
    {"runs", "showcase", "training"},
    {"methods"},
    {"objectives", "tiny", "scorers", "plugins", "report"},
    {"volume", "renderer", "scorer", "views"},
    {"cameras", "styles", "config", "schedule", "hookspecs", "draws", "errors", "files"},
]
FLOOR_OF = {name: i for i, floor in enumerate(FLOORS) for name in floor}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room(path):
    """The file or folder directly inside the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(imported module, at the top of the file) of every import statement."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in top


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down(path):
    own = FLOOR_OF[room(path)]
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] == "distill3d" and len(parts) > 1:
            assert own <= FLOOR_OF[parts[1]], f"{path.name} imports {module}, which is above it"


def test_no_two_rooms_import_each_other():
    seen = {(room(p), m.split(".")[1]) for p in MODULES for m, _ in imports(p) if m.startswith("distill3d.")}
    circles = {(a, b) for a, b in seen if a != b and (b, a) in seen}
    assert not circles


def test_the_core_imports_no_plugin():
    assert not [m for p in MODULES for m, _ in imports(p) if m.startswith(("distill3d_", "plugins"))]


def test_one_module_of_a_run_imports_diffusers():
    """The scripts that make the embedded weights build the same networks."""
    users = {
        p.relative_to(PACKAGE).as_posix() for p in MODULES for m, _ in imports(p) if m.split(".")[0] == "diffusers"
    }
    assert {u for u in users if not u.startswith("tiny/train/")} == {"scorers/diffusers.py"}


def test_only_the_command_line_prints():
    for path in MODULES:
        if room(path) == "cli" or path.is_relative_to(PACKAGE / "tiny" / "train"):
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"], path


def test_only_the_trainer_calls_backward():
    for path in MODULES:
        if path == PACKAGE / "training" / "trainer.py" or path.is_relative_to(PACKAGE / "tiny" / "train"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        assert "backward" not in names, path


def test_nothing_is_unpickled():
    for path in MODULES:
        modules = {m.split(".")[0] for m, _ in imports(path)}
        assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}, path
        assert "torch.load(" not in path.read_text(encoding="utf-8"), path


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
    import distill3d

    for name in distill3d.__all__:
        assert getattr(distill3d, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        distill3d.nonsense  # noqa: B018
