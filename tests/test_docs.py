"""What the documents say exists, exists; what they tell to type can be typed."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:distill3d|tests|docs|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page):
    import typer

    from distill3d.cli import app

    group = typer.main.get_command(app)
    for line in re.findall(r"distill3d (?:[a-z][\w-]*)(?: [^\n`#|]*)?", page.read_text(encoding="utf-8")):
        words = line.split()
        if words[1] not in group.commands:
            continue  # prose, or a plugin's
        launched = words[1] == "launch" and "run" in words
        commands = [group.commands[name] for name in (words[1], *(["run"] if launched else []))]
        known = {option for command in commands for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for word in words[2:]:
            if re.match(r"--[a-z]", word):
                word = re.match(r"--[a-z-]+", word)[0]
                assert word in known, f"{page.name}: {line}"


def test_every_python_snippet_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    from distill3d.scorers.gaussian import GaussianScorer

    class OneControl(GaussianScorer):
        controls = ("depth",)

    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    flipped, depth = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    snippets = [s for p in PAGES for s in re.findall(r"```python\n(.*?)```", p.read_text(encoding="utf-8"), re.S)]
    assert len(snippets) >= 2
    for snippet in snippets:
        images.grad = None
        names = {"scorer": OneControl(), "images": images, "depth": depth}
        exec(snippet, {**names, "mirrored_images": flipped, "flipped_views": flipped})
        assert (images.grad is not None) == ("backward" in snippet)
