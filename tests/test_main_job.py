"""The main job as a new user types it, on the embedded pair."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from PIL import Image


def distill3d(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from distill3d.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_short_run_on_the_embedded_pair_leaves_a_report(tmp_path):
    done = distill3d("run", "--style", "zombie", "--steps", "2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert all(r["gradient_norm"] > 0 and not r["skipped"] for r in records)
    assert Image.open(folder / "turntable.webp").n_frames == 24
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert page.count("data:image/") >= 4


def test_a_prompt_outside_the_embedded_vocabulary_is_refused_with_the_styles(tmp_path):
    done = distill3d("run", "--style", "spaceship cockpit", cwd=tmp_path)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "not taught what the prompt is about: spaceship, cockpit" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_default_run_changes_every_subject_towards_the_style_within_three_minutes(tmp_path):
    """By colour: a zombie's skin is green. Figures of a judge come with the evaluation."""
    import numpy as np

    started = time.time()
    done = distill3d("run", "--style", "zombie", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    print(f"the default run took {time.time() - started:.0f} s")
    done = distill3d(
        "render", "run", "--seeds", "20-27", "--views", "1", "--original", "--out", "pictures", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr

    def greenness(kind, seed):
        face = np.asarray(Image.open(tmp_path / "pictures" / f"{kind}_seed{seed:04d}_view0.png"), dtype=float)
        red, green, _ = face[48:96, 48:80].reshape(-1, 3).mean(0)
        return green / red

    for seed in range(20, 28):
        assert greenness("stylised", seed) > greenness("original", seed) + 0.1, seed


@pytest.mark.slow
def test_a_run_that_is_killed_resumes_to_the_same_weights(tmp_path):
    common = ("run", "--style", "zombie", "--steps", "6", "--save-every", "2")
    assert distill3d(*common, "--out", "straight", cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-c", "from distill3d.cli import main; main()", *common, "--out", "killed"], cwd=tmp_path
    )
    checkpoint = tmp_path / "killed" / "checkpoints" / "step-000002"
    while not checkpoint.exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert distill3d("run", "--resume", "killed", cwd=tmp_path).returncode == 0
    same = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("straight", "killed")]
    assert same[0] == same[1]
