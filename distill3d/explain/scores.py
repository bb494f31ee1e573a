"""A score term under the microscope: noisy input, each branch's estimate, the score by latent channel."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.explain.seen import as_shown
from distill3d.objectives.controls import CONTROLS
from distill3d.objectives.denoising import Denoising, Prediction
from distill3d.objectives.guidance import guide
from distill3d.objectives.rank import spectrum
from distill3d.objectives.score import ScoreDistillation
from distill3d.objectives.term import StepBatch
from distill3d.objectives.terms import ScoreTerm
from distill3d.report.explained import Shown, Strip
from distill3d.report.heat import signed, top_of


@torch.no_grad()
def score_strips(term: ScoreTerm, batch: StepBatch, subject: int) -> tuple[dict[str, str], list[Strip]]:
    """Facts and pictures of what happened between the views and the gradient on the latents."""
    objective = term.annealing.objective(term.objective, batch.draws.step)
    prediction = term.denoising.predict(batch)
    return (
        score_facts(term, objective, prediction, subject),
        [
            Strip("What the scorer was given", given(term.denoising, prediction, batch, subject)),
            Strip("What each branch takes the clean picture for", estimates(objective, prediction, term, subject)),
            *channel_strips(term, objective, prediction, batch, subject),
        ],
    )


def score_facts(term: ScoreTerm, objective: ScoreDistillation, prediction: Prediction, subject: int) -> dict[str, str]:
    """The numbers of this draw."""
    schedule, timestep = term.denoising.scorer.schedule, prediction.timestep[subject : subject + 1]
    facts = {
        "timestep": f"{int(timestep)} of {len(schedule)}: signal {float(schedule.signal(timestep)):.3f}, "
        f"noise {float(schedule.noise(timestep)):.3f}",
        "guidance": ", ".join(f"{weight:+g} {name}" for name, weight in objective.table.items()),
        "noise subtracted": f"{objective.noise_baseline:g}" if objective.noise_baseline else "",
        "two looks": "at the noise and at its negative; the first is shown, the last row has their mean"
        if term.antithetic
        else "",
    }
    before = _ranked_matrix(objective, prediction, subject)
    facts["singular values' shares"] = _shares(before)
    if objective.rank_weights is not None:
        facts["weights of the ranks"] = ", ".join(f"{weight:g}" for weight in objective.rank_weights)
    return facts


def given(denoising: Denoising, prediction: Prediction, batch: StepBatch, subject: int) -> list[Shown]:
    """The picture, the noised one, and the control pictures."""
    size, layout = denoising.scorer.image_size, denoising.layout
    tiles = batch.trained.tiles(layout.shown, denoising.stage, layout.tile(size))
    shown = [
        as_shown("the picture", layout.join(tiles)[subject]),
        as_shown("its latents, decoded", denoising.scorer.decode(prediction.latents)[subject]),
        as_shown("noised, decoded", denoising.scorer.decode(prediction.noisy)[subject]),
    ]
    return shown + control_pictures(denoising, batch, subject)


def control_pictures(denoising: Denoising, batch: StepBatch, subject: int) -> list[Shown]:
    """What the ControlNets looked at."""
    size = denoising.scorer.image_size
    pictures = {
        name: CONTROLS[name](batch.reference, denoising.layout, denoising.stage, size) for name in denoising.controls
    }
    return [as_shown(f"control: {name}", picture[subject] * 2 - 1) for name, picture in pictures.items()]


def estimates(objective: ScoreDistillation, prediction: Prediction, term: ScoreTerm, subject: int) -> list[Shown]:
    """Tweedie's estimate of the clean picture from each branch, and from the guided mixture."""
    scorer, prompts = term.denoising.scorer, term.denoising.prompts
    noise_preds = {f"{name}: {prompts.get(name) or 'no words'}": p for name, p in prediction.branches.items()}
    if abs(sum(objective.table.values()) - 1) < 1e-6:  # a direction alone is no prediction
        noise_preds["guided"] = sum(guide(prediction.branches, objective.table), torch.tensor(0.0))
        if objective.rank_weights is not None:
            noise_preds["guided, rank weighted"] = objective.score_part(prediction.branches)
    shown = []
    for name, noise_pred in noise_preds.items():
        clean = scorer.schedule.denoised(prediction.noisy, noise_pred, prediction.timestep)
        shown.append(as_shown(name, scorer.decode(clean)[subject]))
    return shown


def channel_strips(
    term: ScoreTerm, objective: ScoreDistillation, prediction: Prediction, batch: StepBatch, subject: int
) -> list[Strip]:
    """The score part before and after rank weighting, and the gradient on the latents, channel by channel."""
    gradient = term.latent_gradient(prediction, batch)
    strips = []
    for rows in score_rows(objective, prediction):
        together = top_of(*(values[subject] for values in rows.values()))  # what rank weighting takes away is seen
        strips += [channel_strip(title, values[subject], together) for title, values in rows.items()]
    masked = ", masked" if term.mask else ""
    return [*strips, channel_strip(f"Gradient on the latents: weighted{masked}", gradient[subject])]


def score_rows(objective: ScoreDistillation, prediction: Prediction) -> list[dict[str, Tensor]]:
    """The score part, and what rank weighting acts on before and after it; what shares a scale is together."""
    rest, direction = guide(prediction.branches, objective.table)
    if objective.rank_weights is None:
        return [{"Score part": rest + direction}]
    whole = objective.score_part(prediction.branches)
    if objective.rank_on == "score" or not rest.any():
        return [{"Score part": rest + direction, "Score part, rank weighted": whole}]
    return [
        {"Score part": rest + direction},
        {"Its guidance": direction, "Its guidance, rank weighted": whole - rest},
    ]


def channel_strip(title: str, values: Tensor, top: float | None = None) -> Strip:
    """(C, h, w) as one picture per channel, all on one scale."""
    top = top_of(values) if top is None else top
    rms = values.float().square().mean((-1, -2)).sqrt().tolist()
    return Strip(
        title,
        [Shown(f"channel {i}, RMS {rms[i]:.3g}", signed(channel, top)) for i, channel in enumerate(values)],
        note=f"RMS {float(values.float().square().mean().sqrt()):.3g}; white is 0, blue {-top:.3g}, red {top:.3g}",
    )


def _ranked_matrix(objective: ScoreDistillation, prediction: Prediction, subject: int) -> Tensor:
    """(1, C, h, w): what rank weighting acts on, or would."""
    rest, direction = guide(prediction.branches, objective.table)
    matrix = rest + direction if objective.rank_on == "score" else direction
    return matrix[subject : subject + 1]


def _shares(matrix: Tensor) -> str:
    return ", ".join(f"{float(share):.3f}" for share in spectrum(matrix)[0])
