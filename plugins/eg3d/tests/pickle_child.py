"""Run as a process of its own: reads pickles with little memory, under an audit hook, and prints what happened as JSON.

pickle_child.py read FOLDER                      every .pkl of a folder
pickle_child.py mutate FOLDER SEED COUNT         so many mutations of every .pkl of a folder
pickle_child.py load FOLDER                      every .pkl with `pickle.load`: what the reader protects from
"""

from __future__ import annotations

import copyreg
import json
import os
import pickle
import pickletools
import random
import re
import resource
import sys
import time
import types
import warnings
from pathlib import Path

import torch

from distill3d_eg3d.pickles import PickleError, read_generator

MEMORY = 512 * 2**20  # beyond what the imported libraries map
EXTENSION = 241
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
watched: set[str] = set()
seen: list[str] = []


class Gadget:
    """Every method that unpickling calls touches the path that it is given."""

    def __new__(cls, path=None):
        return object.__new__(cls) if path is None else cls.touch(object.__new__(cls), path)

    def touch(self, path, *_):
        Path(path).touch()
        return self

    def extend(self, paths):
        self.touch(paths[0])

    __setstate__ = __setitem__ = append = add = touch


class Hashed:
    def __hash__(self):
        Path(self.canary).touch()
        return 0


class Plain:
    pass


def install_gadgets() -> None:
    """What a hostile pickle might find in a process."""
    sys.modules["gadgets"] = types.SimpleNamespace(Gadget=Gadget, Hashed=Hashed, Plain=Plain)
    copyreg.add_extension("posix", "system", EXTENSION)


def audit(event: str, arguments: tuple) -> None:
    """Note each event while a file is read, but opening that file for reading."""
    if not watched:
        return
    if event == "open" and str(arguments[0]) in watched and not arguments[2] & WRITING:
        return
    seen.append(f"{event} {arguments!r:.200}")


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_mib() -> float:
    """The most memory that was resident; `ru_maxrss` would begin with the parent's."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def outcome(path: Path) -> dict:
    """How reading one file ended: "ok", "refused", "unforeseen" (by the last line of defence) or "escaped"."""
    seen.clear()
    started = time.process_time()
    watched.add(str(path))
    try:
        found = read_generator(path)
        ended, message = "ok", f"{len(found.tensors)} tensors"
    except PickleError as error:
        ended, message = ("unforeseen" if error.__cause__ or "memory" in str(error) else "refused"), str(error)
    except BaseException as error:
        ended, message = "escaped", f"{type(error).__name__}: {error}"
    watched.clear()
    return {
        "ended": ended,
        "message": message,
        "events": list(seen),
        "seconds": time.process_time() - started,
        "peak": peak_mib(),
    }


def mutated(content: bytes, places: list[int], chance: random.Random) -> bytes:
    """A few changes, most of them at opcodes and their arguments: the bytes of weights are most of a file."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = min(chance.choice(places) + chance.choice([0, 0, 1, 2, 5]), len(changed) - 1)
        size = chance.choice([1, 1, 2, 4, 8, 100])
        match chance.randrange(8):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.randrange(256)
            case 2:
                changed[place] = ord(chance.choice(list(pickletools.code2op)))
            case 3:
                changed[place : place + size] = chance.choice([b"\xff", b"\x00", b"\x7f"]) * size
            case 4:
                del changed[place : place + size]
            case 5:
                other = chance.choice(places)
                changed[place:place] = changed[other : other + size]
            case 6:
                other = chance.choice(places)
                changed[place : place + size] = changed[other : other + size]
            case 7:
                del changed[chance.randrange(len(changed)) if chance.random() < 0.2 else len(changed) :]
        if not changed:
            break
    return bytes(changed)


def mutate(snapshot: Path, seed: int, count: int) -> dict:
    """Outcome of each mutation, by the name of the snapshot and its number."""
    content = snapshot.read_bytes()
    places = [place for _, _, place in pickletools.genops(content)]
    places += [match.start() for match in re.finditer(rb"\x80\x02", content)]  # the pickles inside of storages
    path, outcomes = snapshot.with_suffix(".mutated"), {}
    for number in range(count):
        path.write_bytes(mutated(content, places, random.Random(f"{seed} {number}")))
        outcomes[f"{snapshot.stem} {number}"] = outcome(path)
    return outcomes


def load(folder: Path) -> dict:
    """Unpickle, as the official code does: with a `_reconstruct_persistent_obj` that executes `module_src`."""
    persistence = types.SimpleNamespace(_reconstruct_persistent_obj=lambda meta: exec(meta["module_src"]))
    sys.modules |= {"torch_utils": persistence, "torch_utils.persistence": persistence}
    sys.modules |= {"dnnlib": persistence, "dnnlib.util": types.SimpleNamespace(EasyDict=dict)}
    warnings.simplefilter("ignore")
    errors = {}
    for path in sorted(folder.glob("*.pkl")):
        try:
            pickle.loads(path.read_bytes())
        except Exception as error:  # most are no whole snapshots
            errors[path.stem] = f"{type(error).__name__}: {error}"
    return errors


def main() -> None:
    torch.set_num_threads(1)
    install_gadgets()
    task, place = sys.argv[1], Path(sys.argv[2])
    if task == "load":
        print(json.dumps(load(place)))
        return
    paths = sorted(place.glob("*.pkl"))
    read_generator(paths[0])  # the first is a valid one: what is imported on first use is imported
    limit_memory()
    before = peak_mib()
    sys.addaudithook(audit)
    if task == "mutate":
        runs = [mutate(path, int(sys.argv[3]), int(sys.argv[4])) for path in paths]
        outcomes = {name: found for run in runs for name, found in run.items()}
    else:
        outcomes = {path.stem: outcome(path) for path in paths}
    print(json.dumps({"outcomes": outcomes, "grown_mib": peak_mib() - before}))


if __name__ == "__main__":
    main()
