"""What the judges of the embedded world see in a style at growing strength, and in mixtures of two.

    python benchmarks/mixtures.py runs/zombie-tiny runs/pixar-tiny [--subjects 64]

Two runs or style packs of the embedded world, of styles that its judges know. The subjects, the cameras and the gallery
are those of `distill3d evaluate` (docs/evaluate.md). The style judge answers photo, one of six styles, or
"off-distribution", which it was taught to say of what is half of one style and half of another; what it says of the
seven others alone shows which styles it still sees in a mixture.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from distill3d.blending import Amount
from distill3d.evaluation import clip_score, retrieve
from distill3d.models import Stylised, load
from distill3d.renderer import Renderer
from distill3d.styles import CATALOGUE
from distill3d.tiny.evaluation.judging import in_chunks
from distill3d.tiny.evaluation.setting import SUBJECTS, Setting, gallery_pictures, query_pictures
from distill3d.tiny.generator import BACKGROUND
from distill3d.tiny.judges import STYLE_ANSWERS, load_judges

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MIXTURES = ((0.5, 0.5), (0.7, 0.6), (0.8, 0.7), (0.9, 0.6), (1.0, 1.0))
OFF = STYLE_ANSWERS.index("off-distribution")


@dataclass(frozen=True)
class Seen:
    """What judges say of a generator's subjects; each style's by its name."""

    log_probability: dict[str, float]  # mean over subjects
    probability: dict[str, float]  # likewise
    among_styles: dict[str, float]  # likewise, of the seven answers but "off-distribution"
    clip: dict[str, float]  # cosine with the style's prompt
    off: float  # probability of "off-distribution"
    identity: float  # share of subjects that the face judge finds among all, untouched and from elsewhere


class Court:
    """The judges, and the subjects that they look at."""

    def __init__(self, original: Renderer, styles: Sequence[str], subjects: int):
        self.styles, self.judges = tuple(styles), load_judges()
        self.setting = Setting.of(SUBJECTS[:subjects])
        self.gallery = in_chunks(self.judges.face, gallery_pictures(original, self.setting, BACKGROUND))
        self.texts = self.judges.clip.texts([CATALOGUE[style].prompt for style in styles])

    @torch.no_grad()
    def look(self, renderer: Renderer) -> Seen:
        """One picture of each subject, judged."""
        pictures = query_pictures(renderer, self.setting)
        said = in_chunks(self.judges.style, pictures)
        embedded = in_chunks(self.judges.clip.images, pictures)
        of = {style: STYLE_ANSWERS.index(style) for style in self.styles}
        probability, among = said.exp().mean(0), said[:, :OFF].softmax(1).mean(0)
        return Seen(
            {style: float(said[:, i].mean()) for style, i in of.items()},
            {style: float(probability[i]) for style, i in of.items()},
            {style: float(among[i]) for style, i in of.items()},
            {style: clip_score(embedded, text) for style, text in zip(self.styles, self.texts)},
            float(probability[OFF]),
            retrieve(in_chunks(self.judges.face, pictures), self.gallery).top1,
        )


def mixtures(one: str, other: str) -> Iterator[dict[str, Amount]]:
    """Each style at growing strength, mixtures of both, and each one's part of the two."""
    yield from ({one: strength, other: 0.0} for strength in STRENGTHS)
    yield from ({one: 0.0, other: strength} for strength in STRENGTHS[1:])
    yield from ({one: a, other: b} for a, b in MIXTURES)
    yield {one: {"geometry": 1.0}, other: {"texture": 1.0}}
    yield {one: {"texture": 1.0}, other: {"geometry": 1.0}}


def row(amounts: dict[str, Amount], seen: Seen) -> str:
    """A line of the table."""
    cells = [", ".join(f"{n} {'+'.join(a) if isinstance(a, dict) else f'{a:g}'}" for n, a in amounts.items() if a)]
    for style in seen.clip:
        numbers = (seen.log_probability, seen.probability, seen.among_styles, seen.clip)
        cells += [f"{number[style]:.{digits}f}" for number, digits in zip(numbers, (2, 3, 2, 2))]
    return f"| {' | '.join([cells[0] or 'untouched', *cells[1:], f'{seen.off:.2f}', f'{seen.identity:.2f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs=2)
    parser.add_argument("--subjects", type=int, default=len(SUBJECTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    palette: Stylised = load(arguments.models[0]).blend({arguments.models[1]: 0.0})
    names = list(palette.amounts)
    styles = [palette.palette.styles[name].style for name in names]
    court = Court(palette.original, styles, arguments.subjects)
    columns = [f"{style}: {what}" for style in styles for what in ("log p", "p", "p among styles", "CLIP")]
    print("| amounts | " + " | ".join([*columns, "p off", "identity"]) + " |")
    print("|---|" + "---:|" * (len(columns) + 2))
    for amounts in mixtures(*names):
        print(row(amounts, court.look(palette.blend(amounts))), flush=True)


if __name__ == "__main__":
    main()
