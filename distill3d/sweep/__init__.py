"""Many runs from one file: styles by methods by seeds, each in its own folder and process, one table at the end."""

from distill3d.sweep.plan import PlannedRun, Sweep, read_sweep
from distill3d.sweep.runner import Counts, SweepWatch, run_sweep
from distill3d.sweep.table import text_table

__all__ = ["Counts", "PlannedRun", "Sweep", "SweepWatch", "read_sweep", "run_sweep", "text_table"]
