"""A run as short as can be for tests of the launcher: trains the toy, saves, and fails where it is told to."""

import os
import signal
import sys
import time
from pathlib import Path

from distill3d.errors import ConfigError, Distill3dError
from distill3d.training.checkpoint import latest_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from distill3d.training.collectives import LostProcessError
from distill3d.training.distributed import start_share, stop_share
from distill3d.training.reports import report_error, report_in
from tests.distributed.jobs import toy_trainer


def train(share, folder, steps, fault="", *, stopping=lambda: False):
    """Train to `steps`, saving every other step; `fault` strikes the last process behind its third step."""
    trainer = toy_trainer(share, "ld-released")
    if list_checkpoints(folder):
        load_checkpoint(latest_checkpoint(folder), trainer)
    while trainer.step_number < steps:
        log = trainer.step(stopping=stopping)
        if fault and share.rank == share.world - 1 and trainer.step_number == 3:
            FAULTS[fault]()
        if trainer.step_number % 2 == 0 or log.stopping:
            save_checkpoint(folder, trainer)
        (folder / f"at-{share.rank}").write_text(str(trainer.step_number))
        if log.stopping:
            break
    return trainer


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crashed():
    raise ZeroDivisionError("this is a bug")


def mistaken():
    raise ConfigError("What was asked for cannot be.")


def slow():
    time.sleep(3600)


FAULTS = {"killed": killed, "crashed": crashed, "mistaken": mistaken, "hanging": slow}


def main(folder, steps, fault):
    asked = []
    report_in()
    (folder / f"process-{os.environ['RANK']}").write_text(str(os.getpid()))
    signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    share = start_share("subjects", "cpu")
    try:
        train(share, folder, steps, fault, stopping=lambda: bool(asked))
    except Distill3dError as error:
        report_error(str(error), lost=isinstance(error, LostProcessError))
        sys.exit(1)
    stop_share()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
