"""One of two processes: does every job, and leaves what it found in the folder it is given."""

import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file

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
    stop_share()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
