"""The embedded world's protocol: who is compared with what, and that the ends of every scale are where they must be."""

import math

import pytest
import torch

from distill3d.draws import Draws
from distill3d.evaluation import psnr
from distill3d.showcase import PREVIEW_SEEDS, SHEET_SEEDS, TURNTABLE_SEEDS
from distill3d.styles import CATALOGUE
from distill3d.tiny import generator as generator_module
from distill3d.tiny.evaluation import (
    CEILING,
    CHANCE,
    MEAN,
    SUBJECTS,
    UNTOUCHED,
    Evaluation,
    Exam,
    Figures,
    Setting,
    has_truth,
    load_clip,
    markdown,
    query_pictures,
    style_sheet,
    text_table,
    true_pictures,
    truth,
)
from distill3d.tiny.evaluation.judging import in_chunks
from distill3d.tiny.evaluation.setting import PITCH_RANGE, SIZE, YAW_RANGE, gallery_pictures, one, recoloured
from distill3d.tiny.generator import BACKGROUND, TinyTriplane, load_tiny
from distill3d.tiny.world import BACKGROUND as GREY
from distill3d.tiny.world import render_heads, style_rows
from tests.tiny.fakes import FakePanel, painted_heads

SEEDS = SUBJECTS[:12]  # three for each query camera


@pytest.fixture(scope="module")
def tiny() -> TinyTriplane:
    return load_tiny()


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting.of(SEEDS)


@pytest.fixture
def _painted(monkeypatch):
    monkeypatch.setattr(truth, "render_heads", painted_heads)


@pytest.fixture
def exam(tiny, setting, _painted) -> Exam:
    pictures = true_pictures(setting, setting.identity(tiny), "zombie")
    return Exam(tiny, CATALOGUE["zombie"], FakePanel(), pictures, setting)


def test_sixty_four_subjects_that_no_picture_of_a_run_shows_and_no_step_trains_on(tiny):
    assert len(set(SUBJECTS)) == 64
    assert not set(SUBJECTS) & {*PREVIEW_SEEDS, *SHEET_SEEDS, *TURNTABLE_SEEDS}
    codes = Setting.of().codes(tiny)
    trained = [tiny.sample_codes(Draws(seed, step, (0, 1)).scoped("subject")) for seed in range(3) for step in range(5)]
    distances = torch.cdist(codes, torch.cat(trained))
    assert float(distances.min()) > 1  # of 32 normal numbers each: none is another's neighbour
    assert float(torch.pdist(codes).min()) > 1


def test_a_gallery_camera_is_another_camera_than_the_querys_and_within_range():
    full = Setting.of()
    yaw, pitch = full.queries.yaw()[:, 0], full.queries.pitch()[:, 0]
    other_yaw, other_pitch = full.gallery.yaw()[:, 0], full.gallery.pitch()[:, 0]
    assert float((yaw - other_yaw).abs().min()) > 0.299
    for angles, bound in ((yaw, YAW_RANGE), (other_yaw, YAW_RANGE), (pitch, PITCH_RANGE), (other_pitch, PITCH_RANGE)):
        assert float(angles.abs().max()) <= bound + 1e-5
    assert len(other_yaw.unique()) == 64
    assert full.colours.flatten(1).unique(dim=0).shape == (64, 3)


def test_a_subject_keeps_camera_and_colour_whoever_comes_after_it():
    few, many = Setting.of(SUBJECTS[:3]), Setting.of(SUBJECTS[:9])
    assert torch.equal(few.colours, many.colours[:3])
    assert torch.equal(few.gallery.cam2world, many.gallery.cam2world[:3])


def test_a_new_background_is_as_if_the_head_had_been_drawn_on_it(setting, tiny):
    identity, cameras = setting.identity(tiny)[:1], one(setting.gallery, 0)
    drawn = render_heads(identity, style_rows(["photo"]), cameras, 24, background=0.2, samples=2)[0]
    rgb, _, mask = render_heads(identity, style_rows(["photo"]), cameras, 24, samples=2)
    found = recoloured(2 * rgb[0, 0] - 1, mask[0, 0], torch.full((3, 1, 1), -0.6), 2 * GREY - 1)
    torch.testing.assert_close(found, 2 * drawn[0, 0] - 1, atol=1e-5, rtol=0)


def test_the_generators_gallery_is_as_if_rendered_on_its_colours(setting, tiny, monkeypatch):
    two = Setting.of(SEEDS[:2])
    found = gallery_pictures(tiny, two, BACKGROUND)
    grey = Setting(two.seeds, two.queries, two.gallery, torch.full_like(two.colours, 0.1), two.camera)
    monkeypatch.setattr(generator_module, "BACKGROUND", 0.1)
    rendered = gallery_pictures(tiny, grey, 0.1)
    monkeypatch.undo()
    torch.testing.assert_close(gallery_pictures(tiny, grey, BACKGROUND), rendered, atol=1e-4, rtol=0)
    assert float((found[0, :, 0, 0] - two.colours[0, :, 0, 0]).abs().max()) < 1e-4  # a corner is the colour itself


def test_the_truth_of_a_photo_is_what_the_generator_was_taught(tiny):
    """Real heads, real generator: cameras, backgrounds and identities agree."""
    two = Setting.of(SEEDS[:2])
    heads = render_heads(two.identity(tiny), style_rows(["photo"] * 2), two.queries, SIZE, samples=1)[0][:, 0] * 2 - 1
    own, other = (psnr(render, heads) for render in _both_ways(query_pictures(tiny, two)))
    assert float(own.min()) > 17 and float((own - other).min()) > 2


def _both_ways(pictures):
    small = torch.nn.functional.interpolate(pictures, (SIZE, SIZE), mode="area")
    return small, small.flip(0)


def test_the_true_pictures_reach_the_end_of_every_scale(exam):
    rows = exam.references()
    ceiling, untouched, mean = rows[CEILING], rows[UNTOUCHED], rows[MEAN]
    assert ceiling.psnr == math.inf and ceiling.perceptual == 0
    assert ceiling.rsa_truth == pytest.approx(1) and ceiling.style_accuracy == 1
    assert untouched.psnr_gain == 0 and untouched.diversity == pytest.approx(1)
    assert untouched.rsa_base == pytest.approx(1) and math.isnan(untouched.clip_direction)
    assert mean.diversity == 0 and math.isnan(mean.rsa_truth)
    assert rows[CHANCE].retrieval_top1 == 1 / 12 and rows[CHANCE].style_accuracy == 1 / 8


def test_an_untouched_generator_measured_as_a_run_gives_the_untouched_row(exam, tiny):
    assert str(exam.measure(tiny)) == str(exam.references()[UNTOUCHED])  # as text: NaN is not itself


def test_the_wrong_style_is_no_hit_and_another_clip_fills_its_own_columns(exam, tiny):
    other = Exam(tiny, CATALOGUE["pixar"], FakePanel(says=1), exam.truth, exam.setting, FakePanel().clip)
    figures = other.of_pictures(exam.truth.queries, exam.gallery)
    assert figures.style_accuracy == 0
    assert figures.own_clip == figures.clip and figures.own_clip_direction == figures.clip_direction
    assert math.isnan(exam.of_pictures(exam.truth.queries, exam.gallery).own_clip)


def test_only_pictures_from_one_camera_are_compared_by_distance(exam):
    """Each camera's pictures changed in their own way: distances within a camera stay as they were."""
    shift = 0.1 * exam.setting.camera.float()[:, None, None, None]
    figures = exam.of_pictures(exam.base + shift, exam.gallery)
    assert figures.rsa_base == pytest.approx(1, abs=1e-4) and figures.diversity == pytest.approx(1, abs=1e-4)


def test_the_mean_head_is_the_middle_identity_from_every_query_camera(exam, setting):
    same = setting.camera[:, None] == setting.camera[None]
    distances = torch.cdist(exam.truth.mean.flatten(1), exam.truth.mean.flatten(1))
    assert float(distances[same].max()) == 0
    corner, middle = exam.truth.mean[0, :, 0, 0], exam.truth.mean[0, :, 32, 32]
    torch.testing.assert_close(corner, torch.full((3,), 2 * GREY - 1))
    torch.testing.assert_close(middle, 2 * painted_middle() - 1)


def painted_middle():
    return (0.25 + 0.4 * style_rows(["zombie"])[0, :1].clamp(0, 1)).expand(3)


@pytest.mark.usefixtures("_painted")
def test_the_truth_is_rendered_once_and_anew_when_the_world_changes(tiny, setting, tmp_path, monkeypatch):
    identity, seen = setting.identity(tiny), []
    first = true_pictures(setting, identity, "zombie", cache=tmp_path, progress=lambda *what: seen.append(what))
    assert seen and seen[-1][1] == seen[-1][2]
    monkeypatch.setattr(truth, "render_heads", None)
    again = true_pictures(setting, identity, "zombie", cache=tmp_path)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert float((first.queries - true_without_cache(setting, identity, monkeypatch).queries).abs().max()) < 1e-3
    monkeypatch.setattr(truth, "render_heads", painted_heads)
    true_pictures(setting, identity, "joker", cache=tmp_path)
    monkeypatch.setattr(truth, "world_checksum", lambda: "another world")
    monkeypatch.setattr(truth, "render_heads", None)
    with pytest.raises(TypeError):
        true_pictures(setting, identity, "zombie", cache=tmp_path)


def true_without_cache(setting, identity, monkeypatch):
    monkeypatch.setattr(truth, "render_heads", painted_heads)
    return true_pictures(setting, identity, "zombie")


def test_a_table_goes_to_json_and_back_with_nothing_for_what_says_nothing():
    rows = {"run": Figures(style_accuracy=0.5, psnr=math.inf), CEILING: Figures(style_accuracy=0.8, retrieval_top1=1)}
    evaluation = Evaluation("zombie", 64, rows, {"distill3d": "0"})
    back = Evaluation.from_json(evaluation.to_json())
    assert back.rows["run"].style_accuracy == 0.5 and math.isnan(back.rows["run"].psnr)
    assert (back.style, back.subjects, back.made_with) == ("zombie", 64, {"distill3d": "0"})
    assert evaluation.of_ceiling("run")["style_accuracy"] == pytest.approx(0.625)
    lines = markdown(rows).splitlines()
    assert lines[0] == "| | style accuracy | identity top-1 |" and lines[2] == "| run | 0.50 | - |"
    assert "identity top-1" in text_table(rows) and "clip" not in text_table(rows)


def test_a_sheet_has_six_rows_of_eight():
    small, large = torch.zeros(20, 3, 64, 64), torch.zeros(16, 3, 128, 128)
    full, half = style_sheet(large, large, large), style_sheet(small[:5], large[:5], small[:5])
    assert full.width > 8 * 128 and full.height > 6 * 128
    assert 5 * 128 < half.width < 6 * 128 and 3 * 128 < half.height < 4 * 128


def test_pictures_are_judged_a_few_at_a_time_and_each_by_itself():
    seen = []
    images = torch.rand(70, 3, 8, 8)
    found = in_chunks(lambda part: seen.append(len(part)) or part.mean((-1, -2)), images)
    assert max(seen) <= 32 and torch.equal(found, images.mean((-1, -2)))


def test_a_backbone_or_a_prompt_without_truth_is_known(tiny):
    assert has_truth(tiny, "zombie") and not has_truth(tiny, "portrait of a zombie with a hat")
    assert not has_truth(torch.nn.Linear(1, 1), "zombie")


def test_a_folder_without_a_clip_is_named(tmp_path):
    from distill3d.errors import WeightsError

    with pytest.raises(WeightsError, match="holds no CLIP"):
        load_clip(tmp_path)
