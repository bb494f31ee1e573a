"""What the files in a run's folder are called."""

CONFIG, RUN, VERSIONS, LICENCES, BASE = "config.json", "run.json", "versions.json", "licences.json", "base.json"
EVALUATION = "evaluation"  # a folder
FIGURES = "evaluation.json"  # in it
