"""The embedded world's protocol: 64 subjects that nothing was trained on, and the true picture of each in every style.

What is measured, and between what, is on the page docs/evaluate.md.
"""

from distill3d.tiny.evaluation.exam import CEILING, CHANCE, MEAN, UNTOUCHED, Exam, has_truth
from distill3d.tiny.evaluation.figures import COLUMNS, Figures, cell
from distill3d.tiny.evaluation.judging import Clip, Panel, load_clip
from distill3d.tiny.evaluation.setting import SUBJECTS, Setting, query_pictures
from distill3d.tiny.evaluation.sheet import style_sheet
from distill3d.tiny.evaluation.table import Evaluation, markdown, text_table
from distill3d.tiny.evaluation.truth import Progress, Truth, silent, true_pictures

__all__ = [
    "CEILING",
    "CHANCE",
    "COLUMNS",
    "Clip",
    "Evaluation",
    "Exam",
    "Figures",
    "MEAN",
    "Panel",
    "Progress",
    "SUBJECTS",
    "Setting",
    "Truth",
    "UNTOUCHED",
    "cell",
    "has_truth",
    "load_clip",
    "markdown",
    "query_pictures",
    "silent",
    "style_sheet",
    "text_table",
    "true_pictures",
]
