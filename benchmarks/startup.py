"""What a user waits for before anything happens: importing the package, and `distill3d --help`.

    python benchmarks/startup.py [--runs 7]

Each figure is the median over fresh processes that alternate, less a process that does nothing; CPU time of the child.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "nothing": "pass",
    "torch": "import torch",
    "torch, then the public names": "import torch; from distill3d import Grid, LDLoss, Renderer",
    "import distill3d": "import distill3d",
    "distill3d --help": "import sys; sys.argv[1:] = ['--help']; from distill3d.cli import main; main()",
}


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, code in COMMANDS.items():
            seconds[name].append(cpu_seconds(code))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in list(COMMANDS)[1:]:
        print(f"{name:32} {medians[name] - medians['nothing']:.2f} CPU-s")
    beyond = medians["torch, then the public names"] - medians["torch"]
    print(f"the public names beyond torch: {beyond:.2f} CPU-s (goal 0.3); --help: goal 0.5")


if __name__ == "__main__":
    main()
