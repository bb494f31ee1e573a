"""The microscope replays a step exactly, its pictures are those of the step, and looking changes nothing."""

import json
import math
import re
from functools import partial

import pytest
import torch
from PIL import Image

from distill3d import cli
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError
from distill3d.explain import explain, explain_step
from distill3d.explain.microscope import steps_taken
from distill3d.explain.scores import score_rows
from distill3d.explain.seen import gradient_strips, trained_view, view_name
from distill3d.explain.table import gradient_table
from distill3d.files import sha256
from distill3d.health import probe
from distill3d.methods import ld, ld_paper, ld_released, sds
from distill3d.objectives.rank import rank_weight
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill, open_run
from distill3d.report.heat import heat, signed, tint, top_of
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.checkpoint import list_checkpoints, load_tensors
from distill3d.training.trainer import Trainer
from tests.toys import toy

SCORER = GaussianScorer(latent_size=8)
METHODS = {
    "ld": partial(ld, path="flow"),
    "ld-paper": ld_paper,
    "ld-released": ld_released,
    "sds": sds,
    "annealed": partial(ld_paper, antithetic=True, guidance_end=2.0, t_range_end=(0.02, 0.2), grid="off"),
}


def trainer_of(name, dtype=torch.float64, steps=0):
    made = Trainer(toy(dtype=dtype), METHODS[name](SCORER, CATALOGUE["zombie"], toy().defaults), batch=2)
    for _ in range(steps):
        made.step()
    return made


def whole_state(trainer):
    """Everything that decides the next step, as plain values."""
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    scenes = [entry for scene in trainer.previous or () for entry in scene.values()]
    tensors = [*trainer.trained.values(), *moments, *scenes]
    grads = [None if p.grad is None else p.grad.clone() for p in trainer.trained.values()]
    return [t.detach().clone() for t in tensors], grads, trainer.step_number, trainer.skipped_in_a_row


def same(a, b):
    tensors = all(torch.equal(x, y) for x, y in zip(a[0], b[0])) and len(a[0]) == len(b[0])
    return tensors and a[1:] == b[1:]


@pytest.mark.parametrize("name", METHODS)
def test_the_image_gradients_of_the_terms_add_up_to_the_step(name):
    """Carried through the render to the weights, the gradients on the pictures are the trainer's own gradient.

    What a term puts on the scene itself (LDIS) is taken from `term_gradients`.
    """
    trainer = trainer_of(name, steps=1)
    step = trainer.step_number
    parameters = list(trainer.trained.values())
    total = [torch.zeros_like(p) for p in parameters]
    alone = trainer.term_gradients(step)
    for term_name, weighted in trainer.method.terms.items():
        batch, gradients = trainer.look_at(step, term_name)
        if not any(gradients.values()):
            total = [t + alone[term_name].get(n, 0) for t, n in zip(total, trainer.trained)]
            continue
        scene = trainer.renderer.scene(batch.codes)
        for view, of_view in gradients.items():
            if not of_view:  # a view of a shared prediction that this term reads nothing of
                continue
            draws = batch.draws.scoped(f"render/{view.name}")
            render = trainer.renderer.render(
                scene, batch.cameras[view], upto=weighted.term.needs.views[view], draws=draws
            )
            pixels = sum((getattr(render, kind) * g).sum() for kind, g in of_view.items())
            carried = torch.autograd.grad(pixels, parameters, allow_unused=True, retain_graph=True)
            total = [t if c is None else t + c for t, c in zip(total, carried)]
    trainer.gradients()
    for parameter, expected in zip(parameters, total):
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_looking_and_probing_leave_the_trainer_as_it_was(name, tmp_path):
    trainer, other = trainer_of(name, torch.float32, steps=2), trainer_of(name, torch.float32, steps=2)
    before = whole_state(trainer)
    explain_step(trainer, tmp_path / "step", title="", about="")
    found = probe(trainer)
    assert same(whole_state(trainer), before)
    assert found.keys() == trainer.method.terms.keys()
    assert all(term.norm >= 0 for term in found.values())
    for each in (trainer, other):
        each.step()
    assert same(whole_state(trainer), whole_state(other))


def test_the_probe_of_a_term_is_that_of_the_gradients_it_would_have():
    trainer = trainer_of("ld-paper", steps=1)
    found = probe(trainer, draws=3)["grid"]
    flat = [torch.cat([g.flatten() for g in trainer.term_gradients(step)["grid"].values()]) for step in (1, 2, 3)]
    pairs = [(a, b) for i, a in enumerate(flat) for b in flat[:i]]
    signal = sum(float(a @ b) for a, b in pairs) / 3
    noise = sum(float((a - b).square().sum()) for a, b in pairs) / 6
    assert found.norm == pytest.approx(math.sqrt(sum(float(g @ g) for g in flat) / 3))
    assert found.snr == pytest.approx(math.sqrt(max(0.0, signal) / noise))


SECTIONS = {
    "ld": ("score: Bridge", "grid: Bridge"),
    "ld-paper": ("score: ScoreTerm", "grid: ScoreTerm"),
    "ld-released": ("score: ScoreTerm", "grid: ScoreTerm", "tweedie: Tweedie", "ldis: RelativeDistance"),
    "sds": ("score: ScoreTerm",),
    "annealed": ("score: ScoreTerm",),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_term_of_every_method_has_its_section_and_every_picture_is_there(name, tmp_path):
    page = explain_step(trainer_of(name, torch.float32, steps=1), tmp_path / "step", title="zombie", about="a run")
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<h2 class="term">(.*?)</h2>', text) == list(SECTIONS[name])
    named = set(re.findall(r'src="(.*?)"', text))
    assert named == {path.name for path in page.parent.glob("*.png")}
    assert named
    for file in named:
        with Image.open(page.parent / file) as picture:
            assert picture.width >= 112
    assert "http" not in text
    shown = ("The bridge",) if name == "ld" else ("What the scorer was given", "Gradient on the latents")
    assert all(title in text for title in shown)


def test_a_term_that_is_not_due_is_named_with_its_next_step(tmp_path):
    method = ld(SCORER, CATALOGUE["zombie"], toy().defaults, path="flow", grid_every=3)
    trainer = Trainer(toy(dtype=torch.float32), method, batch=1)
    for _ in range(4):
        trainer.step()
    text = explain_step(trainer, tmp_path / "step", title="", about="").read_text(encoding="utf-8")
    assert "grid is next due at step 6." in text
    assert "grid: Bridge" not in text


def test_a_view_that_the_term_never_read_is_shown_as_it_is():
    """The mirrored view gets a gradient and is not rendered in the step; zeros stand for it there."""
    trainer = trainer_of("ld-paper")
    batch, _ = trainer.look_at(0, "score")
    term = trainer.method.terms["score"].term
    (mirrored,) = term.needs.blind
    assert not batch.trained.views[mirrored].raw.any()
    assert trained_view(trainer, batch, term, mirrored, "image").raw.any()
    first, second = view_name(mirrored, batch, 0), view_name(next(iter(term.needs.views)), batch, 0)
    assert first.startswith("main mirrored, yaw ") and second.startswith("main, yaw ")


def test_rank_weighting_is_shown_on_what_it_acts_on():
    trainer = trainer_of("ld-paper")
    batch, _ = trainer.look_at(0, "score")
    term = trainer.method.terms["score"].term
    with torch.no_grad():
        prediction = term.denoising.predict(batch)
    (whole,), ranked = (list(rows.values()) for rows in score_rows(term.objective, prediction))
    direction = term.objective.guidance_scale * (prediction.branches["prompt"] - prediction.branches["empty"])
    torch.testing.assert_close(ranked[0], direction)
    torch.testing.assert_close(ranked[1], rank_weight(direction))
    torch.testing.assert_close(whole, prediction.branches["empty"] + direction)


def test_the_table_has_each_terms_norm_and_cosines():
    trainer = trainer_of("ld-paper")
    rows = gradient_table(trainer, 0, {"score": 2.0})
    assert rows[0][-2:] == ["cosine with score", "cosine with grid"]
    assert [row[0] for row in rows[1:]] == ["score", "grid"]
    alone = trainer.term_gradients(0)  # the grid does not reach super-resolution
    flat = {
        name: torch.cat([of_term.get(n, torch.zeros_like(p)).flatten() for n, p in trainer.trained.items()])
        for name, of_term in alone.items()
    }
    cosine = torch.nn.functional.cosine_similarity(flat["score"], flat["grid"], dim=0)
    assert float(rows[1][-1]) == pytest.approx(float(cosine), abs=6e-4)
    assert rows[1][-1] == rows[2][-2]
    assert float(rows[2][3]) == pytest.approx(float(flat["grid"].norm()), rel=1e-3)
    assert rows[1][2:3] + rows[2][2:3] == ["2", "-"]


def pixels(picture):
    return [picture.getpixel((x, 0)) for x in (0, picture.width - 1)]


def test_a_scale_ends_where_its_numbers_do():
    values = torch.tensor([[0.0, 2.0]])
    dark, bright = pixels(heat(values, top=2.0))
    assert sum(dark) < 20 and sum(bright) > 600
    blue, red = pixels(signed(torch.tensor([[-2.0, 2.0]]), top=2.0))
    assert blue[2] > blue[0] and red[0] > red[2]
    down, up = pixels(tint(torch.tensor([[[-2.0, 2.0]]]).expand(3, 1, 2), top=2.0))
    assert (down, up) == ((0, 0, 0), (255, 255, 255))
    assert pixels(tint(torch.zeros(3, 1, 2), top=0.0)) == [(128, 128, 128)] * 2
    assert top_of(torch.cat([torch.ones(999), torch.tensor([1e6])])) == 1.0  # one pixel decides no scale
    assert top_of(torch.tensor([math.nan, -3.0])) == 3.0


def test_the_step_that_is_asked_for_goes_down_the_gradient():
    """A gradient that is positive in red alone asks for less red."""
    gradient = torch.zeros(3, 4, 4)
    gradient[0] = 1.0
    _, step = gradient_strips("image", {"front": gradient})
    red, green, blue = step.pictures[0].picture.getpixel((0, 0))
    assert (red, green, blue) == (0, 128, 128)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """Seven steps on the toy, checkpoints at 3, 6 and 7 of which the last two are kept."""
    config = DistillConfig(style="zombie", backbone="toy", scorer="gaussian", method="ld-paper", steps=7, save_every=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
        yield distill(config, tmp_path_factory.mktemp("explain") / "run")


def contents(folder):
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "explain" not in path.relative_to(folder).parts
    }


def test_a_run_is_replayed_bit_for_bit_and_nothing_of_it_changes(a_run):
    before = contents(a_run)
    kept = list_checkpoints(a_run / "checkpoints")
    for checkpoint in kept:  # from the start, not from the checkpoint itself
        hidden = [c.path for c in kept if c.step <= checkpoint.step]
        for path in hidden:
            path.rename(path.with_name(f"hidden-{path.name}"))
        _, trainer = open_run(a_run, min(checkpoint.step, 6))
        for path in hidden:
            path.with_name(f"hidden-{path.name}").rename(path)
        if checkpoint.step <= 6:
            saved = load_tensors(checkpoint.weights)
            assert all(torch.equal(p, saved[name]) for name, p in trainer.trained.items())
    seen = []
    page = explain(a_run, 5, subject=1, progress=lambda reached, wanted: seen.append((reached, wanted)))
    assert page == a_run / "explain" / "step-000005" / "index.html"
    assert seen[-1][1] == 5
    assert contents(a_run) == before


@pytest.mark.parametrize(
    ("step", "subject", "error", "said"),
    [
        (7, 0, RunError, "has the steps 0 to 6"),
        (-1, 0, RunError, "has the steps 0 to 6"),
        (2, 2, ConfigError, "subjects 0 to 1, not 2"),
    ],
)
def test_what_is_not_there_is_said(a_run, step, subject, error, said):
    with pytest.raises(error, match=said):
        explain(a_run, step, subject=subject)
    assert not list(a_run.glob(f"explain/step-{step:06d}"))


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        explain(tmp_path, 0)


def test_a_run_has_come_as_far_as_its_log_or_its_checkpoints_say(tmp_path):
    assert steps_taken(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": i}) + "\n" for i in range(3)) + '{"ste')
    assert steps_taken(tmp_path) == 3
    (tmp_path / "checkpoints" / "step-000009").mkdir(parents=True)
    assert steps_taken(tmp_path) == 9


def test_the_command_says_where_the_page_is(a_run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["distill3d", "explain", str(a_run), "--step", "6", "--subject", "1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    page = a_run / "explain" / "step-000006" / "index.html"
    assert f"Explained: {page}" in capsys.readouterr().out.replace("\n", "")
    assert "subject 1 of 2" in page.read_text(encoding="utf-8")
