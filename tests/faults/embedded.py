"""Imported by the server that runs are forked from: all that the embedded pair's libraries import late."""

from distill3d.config import DistillConfig
from distill3d.recipe import prepare

prepare(DistillConfig(style="zombie"))
