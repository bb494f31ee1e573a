"""What the tests have two processes do, and do in one: each job takes a share and returns tensors by name."""

import math
from functools import partial

import torch

from distill3d.methods import ld, ld_released
from distill3d.objectives import LDLoss
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.term import Weighted
from distill3d.objectives.terms import ScoreTerm
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from distill3d.training.distributed import SHARES
from distill3d.training.share import Share, StepLog
from distill3d.training.trainer import Trainer
from distill3d.views import Single, View
from tests.toys import AROUND, single_view_method, toy

SCORER = GaussianScorer(latent_size=8)
METHODS = {"ld": partial(ld, path="noise"), "ld-released": ld_released}  # LDIS reads the scenes of the step before


def toy_trainer(share, name="ld", batch=2, *, dtype=torch.float64, rerender=True, **options):
    renderer = toy(dtype=dtype)
    method = METHODS[name](SCORER, CATALOGUE["zombie"], renderer.defaults)
    return Trainer(renderer, method, batch=batch, rerender=rerender, lr=lambda step: 1e-3, share=share, **options)


def tiny_trainer(share, batch=2):
    from distill3d.scorers.diffusers import load_tiny as load_scorer
    from distill3d.tiny.generator import load_tiny

    renderer = load_tiny()
    method = METHODS["ld"](load_scorer(), CATALOGUE["zombie"], renderer.defaults)
    return Trainer(renderer, method, batch=batch, lr=lambda step: 1e-3, share=share)


def found(trainer, log, **more):
    gradients = {f"grad/{name}": p.grad for name, p in trainer.trained.items() if p.grad is not None}
    figures = {f"figure/{name}": torch.tensor(value) for name, value in log.figures.items()}
    numbers = {"loss": torch.tensor(log.loss).double(), "norm": torch.tensor(log.gradient_norm).double()}
    return {**gradients, **figures, **numbers, **more}


def weights(trainer):
    return {f"weight/{name}": p.detach() for name, p in trainer.trained.items()}


def gradients(share, folder, name, batch, rerender=True, micro_batch=None):
    """Of the second step, which has one before it."""
    trainer = toy_trainer(share, name, batch, rerender=rerender, micro_batch=micro_batch)
    trainer.step()
    return found(trainer, trainer.gradients())


def tiny_gradients(share, folder):
    trainer = tiny_trainer(share)
    return found(trainer, trainer.gradients())


def untouched_weights(share, folder):
    """One term on raw pictures: nothing reaches the super-resolution, so its gradients are None and stay it."""
    renderer = toy()
    trainer = Trainer(renderer, single_view_method(SCORER, stage="raw"), batch=2, share=share)
    log = trainer.gradients()
    missing = [name for name, p in trainer.trained.items() if p.grad is None]
    assert missing and all(name.startswith(("superres", "modulate")) for name in missing), missing
    return found(trainer, log)


def mixed_precision(share, folder):
    """Gradients of three dtypes in one sum; those of the last process are ones."""
    values = {torch.bfloat16: 256.0, torch.float32: 1e-3, torch.float64: 1e-12}
    parameters = [torch.nn.Parameter(torch.zeros(1, dtype=dtype)) for dtype in values]
    for parameter, value in zip(parameters, values.values()):
        parameter.grad = torch.full_like(parameter, value if share.leads else 1.0)
    share.reduce(parameters, StepLog(0))
    return {str(p.dtype): p.grad for p in parameters}


def agreed(share, folder):
    last = share.rank == share.world - 1
    return {"agreed": torch.tensor([share.agree(wish) for wish in (False, last, True)])}


def trained(share, folder, name="ld", batch=2, steps=3):
    trainer = toy_trainer(share, name, batch, ema=0.9, clip=10.0)
    for _ in range(steps):
        trainer.step()
    return weights(trainer)


def resumed(share, folder, name, saved_by):
    """Two steps more from a checkpoint after the second; `folder` is common to all processes."""
    path = folder / f"{name}-{saved_by}"
    trainer = toy_trainer(share, name)
    load_checkpoint(latest_checkpoint(path), trainer)
    for _ in range(2):
        trainer.step()
    return weights(trainer)


def saved(share, folder, name, saved_by):
    trainer = toy_trainer(share, name)
    for _ in range(2):
        trainer.step()
    save_checkpoint(folder / f"{name}-{saved_by}", trainer)
    return weights(trainer)


def stop_asked_on_last(share, folder):
    """The last process is asked to stop in its third step; all are told in the same one."""
    trainer = toy_trainer(share)
    while not trainer.step(stopping=lambda: share.rank == share.world - 1 and trainer.step_number == 2).stopping:
        pass
    return {"steps": torch.tensor(trainer.step_number)}


class LateNaN(GaussianScorer):
    """Says NaN from the second call on, if it is told to."""

    calls, broken = 0, False

    def predict_noise(self, noisy, timestep, conditions):
        self.calls += 1
        said = super().predict_noise(noisy, timestep, conditions)
        return {name: one * math.nan for name, one in said.items()} if self.broken and self.calls == 2 else said


def nan_on_last(share, folder):
    scorer = LateNaN(latent_size=8)
    scorer.broken = share.rank == share.world - 1
    recipe = Denoising(scorer, Single(View("v", AROUND)), {"prompt": "a", "empty": ""}, pick([300]))
    method = toy_trainer(Share()).method
    method = type(method)({"score": Weighted(1.0, ScoreTerm(recipe, LDLoss(scorer)))})
    trainer = Trainer(toy(), method, batch=2, lr=lambda step: 1e-3, share=share)
    skipped = [trainer.step().skipped for _ in range(3)]
    return {"skipped": torch.tensor(skipped), **weights(trainer)}


def parts(share, folder):
    rows = torch.arange(5.0)[:, None].expand(5, 2)[list(share.subjects(5))]
    return share.gather_subjects({"rows": rows, "none": rows[:0]})


JOBS = {
    **{
        f"gradients {split} {name} {batch} {mode}": (split, gradients, name, batch, mode == "rerender")
        for split in SHARES
        for name in METHODS
        for batch in (2, 3)
        for mode in ("rerender", "keep")
    },
    "gradients subjects ld 3 micro": ("subjects", gradients, "ld", 3, True, 1),
    "gradients subjects ld-released 3 micro": ("subjects", gradients, "ld-released", 3, True, 1),
    "gradients views ld 1": ("views", gradients, "ld", 1),
    **{f"tiny {split}": (split, tiny_gradients) for split in SHARES},
    **{f"untouched {split}": (split, untouched_weights) for split in SHARES},
    "mixed precision": ("subjects", mixed_precision),
    "agree": ("views", agreed),
    **{f"trained {split} {again}": (split, trained, "ld-released") for split in SHARES for again in ("once", "again")},
    **{f"save {split}": (split, saved, "ld-released", split) for split in SHARES},
    **{f"resume own {split}": (split, resumed, "ld-released", split) for split in SHARES},
    **{f"resume one's {split}": (split, resumed, "ld-released", "alone") for split in SHARES},
    **{f"stop {split}": (split, stop_asked_on_last) for split in SHARES},
    "nan": ("subjects", nan_on_last),
    "parts": ("subjects", parts),
}  # fmt: skip
