"""Judges of the embedded world: networks that grade a distillation and that no distillation ever sees."""

from distill3d.tiny.judges.loading import JUDGES_FOLDER, STYLE_ANSWERS, Judges, TextImageJudge, load_judges
from distill3d.tiny.judges.retrieval import retrieval_top1

__all__ = ["JUDGES_FOLDER", "STYLE_ANSWERS", "Judges", "TextImageJudge", "load_judges", "retrieval_top1"]
