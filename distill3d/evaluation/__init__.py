"""Metrics: tensors in, numbers out. None knows a backbone, a judge or a protocol."""

from distill3d.evaluation.clip import clip_direction, clip_score
from distill3d.evaluation.diversity import diversity_ratio
from distill3d.evaluation.interval import Interval, mean_interval
from distill3d.evaluation.pairwise import pairwise_distances, upper
from distill3d.evaluation.perceptual import perceptual_distance
from distill3d.evaluation.psnr import psnr
from distill3d.evaluation.retrieval import Retrieval, retrieve
from distill3d.evaluation.rsa import rsa
from distill3d.evaluation.style import style_accuracy

__all__ = [
    "Interval",
    "Retrieval",
    "clip_direction",
    "clip_score",
    "diversity_ratio",
    "mean_interval",
    "pairwise_distances",
    "perceptual_distance",
    "psnr",
    "retrieve",
    "rsa",
    "style_accuracy",
    "upper",
]
