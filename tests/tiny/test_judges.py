"""The judges' contract: any size, unit length, every picture on its own, clear errors; and how retrieval counts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from distill3d.errors import ShapeError, WeightsError
from distill3d.files import sha256
from distill3d.tiny.judges import JUDGES_FOLDER, STYLE_ANSWERS, load_judges, retrieval_top1
from distill3d.tiny.judges.networks import DepthNet, FaceNet, Layout, StyleNet
from distill3d.tiny.world import STYLE_NAMES

pytest.importorskip("diffusers")

from distill3d.tiny.train.diffusion.text import build_clip
from distill3d.tiny.train.diffusion.tokenizer import build_tokenizer
from distill3d.tiny.train.judges import pack
from distill3d.tiny.train.judges.clip import SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Judges that know nothing yet, in the files of trained ones."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("judges")
    small = {"widths": (8, 16, 16), "depths": (1, 1, 1)}
    pack.save_network(folder, "face", FaceNet(Layout(**small, outputs=12)))
    pack.save_network(folder, "style", StyleNet(Layout(**small, outputs=len(STYLE_ANSWERS))))
    pack.save_network(folder, "depth", DepthNet(Layout(**small, outputs=1)))
    pack.save_clip(
        folder, build_clip(build_tokenizer(folder / "tokenizer"), SIZE), build_tokenizer(folder / "tokenizer")
    )
    return folder


@pytest.fixture(scope="module")
def judges(folder):
    return load_judges(folder)


def pictures(count: int = 3, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def answers(judges, image):
    return {
        "face": judges.face(image),
        "style": judges.style(image),
        "clip": judges.clip.images(image),
        "depth": judges.depth(image),
        **{f"features {i}": maps for i, maps in enumerate(judges.features(image))},
    }


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (112, 112), (40, 56)])
def test_every_judge_takes_pictures_of_any_size(judges, size):
    found = answers(judges, pictures(3, *size))
    assert found["face"].shape == (3, 12)
    assert found["style"].shape == (3, len(STYLE_NAMES) + 1)
    assert found["depth"].shape == (3, 1, 64, 64)
    for name in ("face", "clip"):
        torch.testing.assert_close(found[name].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found["style"].exp().sum(1), torch.ones(3))
    assert found["depth"].min() >= 0 and found["depth"].max() <= 1


def test_a_prompt_has_an_embedding_of_unit_length_whatever_its_letters(judges):
    found = judges.clip.texts(["Portrait of a zombie", "portrait of a zombie", "a photo of a person"])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    assert found.shape[1] == judges.clip.images(pictures()).shape[1]


def test_a_picture_is_judged_alike_alone_and_among_others(judges):
    alone, among = answers(judges, pictures()[1:2]), answers(judges, pictures())
    for name, value in alone.items():
        torch.testing.assert_close(value, among[name][1:2], msg=name, atol=1e-4, rtol=1e-4)


def test_equal_pictures_get_equal_answers_and_no_gradients(judges):
    image = pictures().requires_grad_()
    once, again = answers(judges, image), answers(judges, image)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not any(value.requires_grad for value in once.values())


def test_different_pictures_get_different_answers(judges):
    for name, value in answers(judges, pictures()).items():
        assert not torch.allclose(value[0], value[1], atol=1e-4), name


def test_judges_that_are_not_there_are_missed_by_name(tmp_path):
    with pytest.raises(WeightsError, match=r"face\.json.*train judges"):
        load_judges(tmp_path)


@pytest.mark.parametrize("file", ["depth.safetensors", "style.json", "clip/model.safetensors", "clip/vocab.json"])
def test_a_judge_without_one_of_its_files_is_missed_by_name(folder, tmp_path, file):
    pack.copy(folder, tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(WeightsError, match=file.split("/")[-1]):
        load_judges(tmp_path)


@pytest.mark.parametrize("file", ["face.safetensors", "face.json", "clip/model.safetensors", "clip/config.json"])
def test_half_a_file_is_called_damaged(folder, tmp_path, file):
    pack.copy(folder, tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        load_judges(tmp_path)


@pytest.mark.parametrize("file", ["face.safetensors", "clip/model.safetensors"])
def test_the_weights_of_something_else_are_refused(folder, tmp_path, file):
    pack.copy(folder, tmp_path)
    save_file({"something": torch.zeros(2)}, tmp_path / file)
    with pytest.raises(WeightsError):
        load_judges(tmp_path)


def test_the_judges_can_be_imported_without_heavy_libraries():
    code = (
        "import sys, distill3d.tiny.judges\n"
        "print(sorted({'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_subject_is_found_where_its_own_row_is_the_nearest():
    gallery = torch.randn(16, 8)
    assert retrieval_top1(3 * gallery, gallery).tolist() == [1.0] * 16  # length does not matter
    order = torch.arange(16).roll(1)
    assert retrieval_top1(gallery[order], gallery).sum() == 0
    order[:4], expected = torch.arange(4), torch.zeros(16)
    expected[:4] = 1
    assert torch.equal(retrieval_top1(gallery[order], gallery), expected)


def test_embeddings_that_are_all_alike_find_nobody():
    assert retrieval_top1(torch.ones(5, 3), torch.ones(5, 3)).sum() == 0


def test_queries_and_gallery_are_of_the_same_subjects():
    with pytest.raises(ShapeError, match="gallery"):
        retrieval_top1(torch.ones(5, 3), torch.ones(4, 3))


installed = pytest.mark.skipif(not JUDGES_FOLDER.is_dir(), reason="no judges are installed")


@installed
def test_the_installed_judges_are_the_ones_written_down():
    noted = json.loads((JUDGES_FOLDER / "provenance.json").read_text())["networks"]
    assert set(noted) == set(pack.WEIGHTS)
    for name, file in pack.WEIGHTS.items():
        assert noted[name]["sha256"] == sha256(JUDGES_FOLDER / file), name
        assert noted[name]["steps_done"] == sum(noted[name]["steps"]), name
    assert sum(p.stat().st_size for p in JUDGES_FOLDER.rglob("*") if p.is_file()) <= 2.7e6


@installed
def test_the_truth_passes_before_the_installed_judges():
    """A judge with a low ceiling cannot rank methods."""
    reached = {name: one["ceiling"] for name, one in json.loads(
        (JUDGES_FOLDER / "provenance.json").read_text())["networks"].items()}  # fmt: skip
    styles = STYLE_NAMES[1:]
    assert sum(reached["face"][name] for name in styles) / len(styles) >= 0.9
    assert min(reached["style"][name] for name in STYLE_NAMES) >= 0.9
    assert reached["style"]["green photos taken for zombies"] <= 0.1
    assert min(reached["depth"][name] for name in STYLE_NAMES) >= 0.9


@installed
def test_the_installed_clip_knows_a_style_by_its_prompt():
    judges = load_judges()
    found = judges.clip.texts(["Portrait of a zombie", "a zombie", "a marble statue"])
    assert found[0] @ found[1] > found[0] @ found[2]
