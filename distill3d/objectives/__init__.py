"""The terms of a loss: score distillation first."""

from distill3d.objectives.score import CSDLoss, LDLoss, ScoreDistillation, SDSLoss

__all__ = ["CSDLoss", "LDLoss", "SDSLoss", "ScoreDistillation"]
