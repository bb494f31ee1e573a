"""The embedded weights are the ones whose making is written down beside them, and they stay small."""

import json
from pathlib import Path

import distill3d
from distill3d.files import sha256

WEIGHTS = Path(distill3d.__file__).parent / "tiny" / "weights"


def test_the_generators_file_is_the_one_written_down():
    noted = json.loads((WEIGHTS / "generator.provenance.json").read_text())
    assert noted["sha256"] == sha256(WEIGHTS / "generator.safetensors")
    assert noted["script"] == "python -m distill3d.tiny.train generator"


def test_every_network_of_the_diffusion_model_is_the_one_written_down():
    noted = json.loads((WEIGHTS / "diffusion" / "provenance.json").read_text())
    parts = {p.parent.name: sha256(p) for p in (WEIGHTS / "diffusion").glob("*/*.safetensors")}
    assert {part: entry["sha256"] for part, entry in noted["networks"].items()} == parts
    assert set(parts) - {"controlnet-canny"} == {"unet", "vae", "text_encoder", "controlnet"}
    assert all(entry["steps_done"] == sum(entry["steps"]) for entry in noted["networks"].values())


def test_all_of_it_is_at_most_20_megabytes():
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*") if p.is_file()) <= 20e6


def test_nothing_in_it_is_a_pickle():
    endings = {p.suffix for p in WEIGHTS.rglob("*") if p.is_file()}
    assert endings <= {".safetensors", ".json", ".txt"}
