"""Two processes that do all jobs once, since starting them is what takes time."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distill3d.training.share import Share
from tests.distributed import jobs

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def start_pair(words, port):
    """Two processes of a module, in the environment that `torch.distributed.run` would make."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """What both processes found in a job, by the job's name."""
    folder = tmp_path_factory.mktemp("pair")
    jobs.saved(Share(), folder, "ld-released", "alone")
    processes = start_pair(["tests.distributed.pair_worker", folder], free_port())
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)

    def result(name):
        return [load_file(folder / f"{name}.{rank}.safetensors") for rank in (0, 1)]

    result.folder = folder
    return result


@pytest.fixture
def alone(pair):
    """The same job by one process."""

    def result(name):
        _, job, *rest = jobs.JOBS[name]
        return job(Share(), pair.folder, *rest)

    return result
