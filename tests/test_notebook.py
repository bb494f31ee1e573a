"""The notebook runs from top to bottom, on a run of two steps; no Jupyter is needed for that."""

import ast
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distill3d.config import DistillConfig
from tests.varied_runs import plain_run, varied

NOTEBOOK = Path(__file__).parents[1] / "examples" / "style_packs.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def sources(notebook):
    """The code cells by their ids."""
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"}


def test_it_is_a_notebook_without_outputs(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert all(line.endswith("\n") for line in cell["source"][:-1])


def test_models_are_named_in_one_cell_at_its_top_alone(notebook):
    first, *others = sources(notebook).values()
    names = {ast.unparse(target) for line in ast.parse(first).body for target in line.targets}
    assert names == {"ZOMBIE", "PIXAR", "SEEDS"}
    assert not [text for text in others if "runs/" in text or "tiny" in text]


def test_it_trains_and_pushes_nothing(notebook):
    for text in sources(notebook).values():
        called = {ast.unparse(n.func).split(".")[-1] for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)}
        assert not called & {"distill", "push", "push_to_hub", "train"}


def run_cell(text, names):
    """What Jupyter shows of a cell: the value of its last line, if that is an expression."""
    body = ast.parse(text).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(last, "cell", "eval"), names)


def test_its_cells_run_in_order_and_show_what_they_say(notebook, tmp_path, monkeypatch, capsys):
    run = plain_run(DistillConfig(style="zombie", steps=2, probe=0), tmp_path / "zombie")
    other = varied(run, tmp_path / "pixar", 1)
    display = ModuleType("IPython.display")
    display.Image = lambda data, format: (data[:4], format)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    names, shown = {}, {}
    for id, text in sources(notebook).items():
        shown[id] = run_cell(text.replace("turn=True", "turn=True, frames=2, columns=2"), names)
        if id == "names":
            names.update(ZOMBIE=str(run), PIXAR=str(other), SEEDS=(0, 1))

    heights = {id: shown[id].height for id in ("render", "sweep", "mix", "parts")}
    assert heights["render"] < heights["parts"] < heights["mix"] < heights["sweep"]
    sweep = np.asarray(shown["sweep"])
    tiles = [sweep[30 + 131 * i : 158 + 131 * i, 100:] for i in range(7)]
    assert all((a != b).any() for a, b in itertools.pairwise(tiles))  # each strength is another picture
    assert shown["morph"] == (b"RIFF", "webp")
    said = capsys.readouterr().out
    assert "TinyTriplane {'zombie': 1.0}" in said
    assert "adapter.safetensors" in said and "format='low-rank'" in said
