"""One of two processes: does every job, and leaves what it found in the folder it is given."""

import os
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file

from distill3d.training.collectives import LostProcessError
from distill3d.training.distributed import SHARES, start_share, stop_share
from tests.distributed.jobs import JOBS


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    first = start_share("subjects", "cpu")
    for name, (split, job, *rest) in JOBS.items():
        share = SHARES[split](first.rank, first.world, "cpu")
        try:
            result = job(share, folder, *rest)
        except Exception:
            (folder / f"{name}.{share.rank}.txt").write_text(traceback.format_exc())
            raise
        # Copies: a result may share storage, which safetensors does not store twice.
        result = {key: value.detach().clone().contiguous() for key, value in result.items()}
        save_file(result, folder / f"{name}.{share.rank}.safetensors")
    lose_one(folder, first)


def lose_one(folder: Path, share) -> None:
    """The last process is gone without a word; what the first is told when it waits for it."""
    if share.rank == share.world - 1:
        os._exit(0)
    try:
        share.agree(True)
    except LostProcessError as error:
        (folder / "lost").write_text(str(error))
    stop_share()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
