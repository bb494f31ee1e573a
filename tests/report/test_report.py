"""The pictures and the page of a run."""

import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.errors import RunError, ShapeError
from distill3d.report.curves import curves_svg, read_metrics, spectrum_svg
from distill3d.report.page import write_report
from distill3d.report.pictures import before_after_sheet, contact_sheet, save_picture, to_uint8
from distill3d.report.turntable import save_turntable

PROMPT = "a <script>alert('boo')</script> zombie"


def plain(colour, size=128):
    """(3, size, size) of one colour in [-1, 1]."""
    return torch.tensor(colour).view(3, 1, 1).expand(3, size, size)


def metrics(*steps):
    record = {"loss": 1.5, "gradient_norm": 0.2, "lr": 1e-3, "seconds": 0.4, "skipped": False, "figures": {}}
    return [{"step": step, **record} for step in steps]


@pytest.fixture
def run_folder(tmp_path):
    """A finished run with all its pieces."""
    folder = tmp_path / "zombie-tiny"
    (folder / "previews").mkdir(parents=True)
    picture = Image.new("RGB", (32, 32), (9, 99, 9))
    for place in ("sheet.png", "turntable.webp", "previews/step_000000.png", "previews/step_000010.png"):
        save_picture(picture, folder / place)
    config = {"style": PROMPT, "backbone": "tiny", "method": "ld", "steps": 3, "seed": 7, "options": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({"status": "finished", "step": 3}))
    (folder / "versions.json").write_text(json.dumps({"torch": "2.6.0"}))
    (folder / "licences.json").write_text(json.dumps({"backbone": "Apache-2.0"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics(0, 1, 2)))
    return folder


def test_bytes_are_0_128_255_at_the_ends_and_the_middle():
    image = torch.tensor([-1.0, 0.0, 1.0, -3.0, 3.0]).expand(2, 3, 1, 5)
    assert to_uint8(image).shape == (2, 1, 5, 3)
    assert to_uint8(image)[1, 0, :, 2].tolist() == [0, 128, 255, 0, 255]


def test_every_byte_survives_the_way_to_floats_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    images = (values / 127.5 - 1).expand(3, 1, 256)
    assert np.array_equal(to_uint8(images)[0, :, 0], values.numpy())


def test_a_subjects_stylised_row_lies_right_below_its_original_row():
    reds, greens = [-1.0, -0.5, 0.0], [0.0, 0.5, 1.0]
    before = torch.stack([torch.stack([plain((r, -1.0, v)) for v in (-1.0, 1.0)]) for r in reds])
    after = torch.stack([torch.stack([plain((-1.0, g, v)) for v in (-1.0, 1.0)]) for g in greens])
    sheet = before_after_sheet(before, after, subject_labels=["a", "b", "c"], view_labels=["left", "right"])

    # Colours in reading order, of pixels that lie in the middle of a tile: paper and letters are grey.
    pixels = np.asarray(sheet).reshape(-1, 3)
    coloured = pixels[np.abs(pixels.astype(int) - pixels.mean(1, keepdims=True)).max(1) > 20]
    seen = list(dict.fromkeys(map(tuple, coloured.tolist())))
    rows = [tile for pair in zip(before, after) for row in pair for tile in row]
    expected = [tuple(to_uint8(tile)[0, 0].tolist()) for tile in rows]
    assert seen == [colour for colour in expected if colour != (0, 0, 0)]


def test_a_tile_on_a_sheet_is_the_tile():
    tiles = torch.rand(1, 1, 3, 128, 128) * 2 - 1
    sheet = np.asarray(contact_sheet(tiles, ["row"], ["column"]))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (128, 128, 3))
    corner = to_uint8(tiles[0, 0])[0, 0]
    places = np.argwhere((sheet[: windows.shape[0], : windows.shape[1]] == corner).all(-1))
    assert any(np.array_equal(windows[y, x, 0], to_uint8(tiles[0, 0])) for y, x in places)


def test_small_tiles_are_enlarged_until_one_sees_something():
    tiles = plain((1.0, -1.0, -1.0), size=32).expand(1, 1, 3, 32, 32)
    sheet = np.asarray(contact_sheet(tiles, ["row"], ["column"]))
    assert (sheet == (255, 0, 0)).all(-1).sum() >= 100**2


def test_a_sheet_refuses_two_different_numbers_of_views():
    with pytest.raises(ShapeError, match=r"\(1, 2, 3, 8, 8\) and \(1, 3, 3, 8, 8\)"):
        before_after_sheet(
            torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 3, 3, 8, 8), subject_labels=["a"], view_labels=["b", "c"]
        )


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_a_turntable_opens_with_all_its_frames_and_never_ends(tmp_path, ending):
    frames = torch.linspace(-1, 1, 6).view(6, 1, 1, 1, 1).expand(6, 2, 3, 128, 128)
    save_turntable(frames, tmp_path / f"turn.{ending}", before=-frames)
    with Image.open(tmp_path / f"turn.{ending}") as turn:
        assert (turn.n_frames, turn.info["loop"]) == (6, 0)
        assert turn.height >= 256  # the original above
        top, bottom = (np.asarray(turn.convert("RGB"))[y].mean() for y in (20, -20))
    assert top > 235
    assert bottom < 20


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path):
    lines = [json.dumps(record) for record in metrics(0, 1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines)[:-9])
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_curves_are_drawn_with_a_loss_that_is_not_finite():
    records = metrics(0, 1, 2)
    records[1].update(loss=float("nan"), gradient_norm=float("inf"), skipped=True)
    assert curves_svg(records).startswith("<svg")


def test_the_page_asks_nothing_of_anybody(run_folder):
    page = write_report(run_folder).read_text(encoding="utf-8")
    sources = re.findall(r"""\bsrc\s*=\s*["']?(.{5})""", page)
    assert sources.count("data:") == len(sources) == 4
    assert not re.findall(
        r"""(?:href|action|poster)\s*=\s*["']?https?:|url\(["']?https?:|@import|<script|<link""", page
    )


def test_a_prompt_cannot_write_html(run_folder):
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        (
            ["metrics.jsonl", "sheet.png", "turntable.webp", "run.json"],
            ["Over the run", "Commands", "Settings", "Licences of the parts", "Versions"],
        ),
        (
            ["versions.json", "licences.json", "previews/step_000000.png", "previews/step_000010.png"],
            ["Before and after", "Curves", "Cost", "Commands", "Settings"],
        ),
    ],
)
def test_a_run_that_stopped_early_gets_a_page_without_the_missing_parts(run_folder, missing, left):
    for name in missing:
        (run_folder / name).unlink()
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == left
    assert "None" not in page


def test_the_page_says_how_to_do_the_run_again(run_folder):
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "--seed 7" in page
    assert "distill3d run --resume" in page


def test_a_place_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="Cannot write"):
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "file" / "sheet.png")


def test_a_picture_that_cannot_be_encoded_leaves_the_old_one(tmp_path):
    save_picture(Image.new("RGB", (4, 4), (1, 2, 3)), tmp_path / "sheet.png")
    with pytest.raises((RunError, OSError)):
        save_picture(Image.new("F", (4, 4)), tmp_path / "sheet.png")
    assert os.listdir(tmp_path) == ["sheet.png"]
    assert Image.open(tmp_path / "sheet.png").getpixel((0, 0)) == (1, 2, 3)


def checks(*kept):
    """Lines of health.jsonl, every hundred steps."""
    probed = {name: {"norm": 2.0, "snr": 0.5, "cosines": {other: 0.1}} for name, other in ("ab", "ba")}
    return [
        {
            "step": 100 * i,
            "kept": k,
            "diversity": k,
            "identity": k,
            "change": 1 - k,
            "collapsed": k < 0.3,
            "terms": probed,
        }
        for i, k in enumerate(kept)
    ]


def page_with(run_folder, lines):
    (run_folder / "health.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_report(run_folder).read_text(encoding="utf-8")


def test_a_healthy_run_has_its_health_drawn_and_no_alarm(run_folder):
    page = page_with(run_folder, checks(1.0, 0.8))
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles.index("Health") < titles.index("Curves") < titles.index("Terms")
    assert 'class="alarm"' not in page


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((1.0, 0.2, 0.1), "collapsed at step 100: its subjects kept 20% of what told them apart."),
        ((1.0, 0.2, 0.9), "collapsed at step 100: its subjects kept 20% of what told them apart, and recovered: 90%"),
    ],
)
def test_a_collapse_is_said_at_the_top_of_the_page(run_folder, kept, said):
    page = page_with(run_folder, checks(*kept))
    assert said in page
    assert page.index(said) < page.index("<img")


def test_a_health_of_nothing_but_nulls_is_drawn(run_folder):
    """As of a run on one photograph, which has no pairs."""
    line = {"step": 0, "diversity": None, "identity": None, "change": None, "kept": None, "collapsed": False}
    assert "<h2>Health</h2>" in page_with(run_folder, [line, {**line, "step": 5}])


def test_the_shares_of_the_singular_values_are_drawn_where_a_term_has_them(run_folder):
    figures = {f"grid/spectrum{i}": share for i, share in enumerate((0.6, 0.2, 0.15, 0.05))}
    records = [{**record, "figures": figures if record["step"] % 2 == 0 else {}} for record in metrics(*range(5))]
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "<h2>Spectrum of the guidance</h2>" in write_report(run_folder).read_text(encoding="utf-8")


def test_the_areas_of_the_spectrum_fill_the_drawing_when_the_shares_sum_to_one(monkeypatch):
    from matplotlib.axes import Axes

    stacked = []
    monkeypatch.setattr(Axes, "stackplot", lambda self, steps, rows, **named: stacked.append((list(steps), rows)))
    shares = (0.6, 0.2, 0.15, 0.05)
    figures = {f"score/spectrum{i}": share for i, share in enumerate(shares)}
    monkeypatch.setattr(Axes, "legend", lambda self, **named: None)  # of nothing, since nothing is drawn
    spectrum_svg([{"step": 3 * i, "figures": figures} for i in range(4)])
    ((steps, rows),) = stacked
    assert steps == [0, 3, 6, 9]
    assert np.allclose(np.sum(rows, 0), 1)
    assert np.allclose([row[0] for row in rows], shares)
