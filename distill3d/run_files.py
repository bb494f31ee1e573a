"""What a run's folder and the files in it are called."""

RUNS = "runs"  # a folder here, in which runs are unless told otherwise; bare names are looked for in it
CONFIG, RUN, VERSIONS, LICENCES, BASE = "config.json", "run.json", "versions.json", "licences.json", "base.json"
EVALUATION = "evaluation"  # a folder
FIGURES = "evaluation.json"  # in it
