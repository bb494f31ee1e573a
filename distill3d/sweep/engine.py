"""What the sweep asks of whatever runs its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from distill3d.sweep.place import Place

How = Literal["done", "failed", "stopped", "died"]
DONE, REFUSED, STOPPED = 0, 3, 75  # a worker's exit codes; Python's own for an unforeseen error is 1
HOW: dict[int, How] = {DONE: "done", REFUSED: "failed", STOPPED: "stopped"}


@dataclass(frozen=True)
class Ended:
    """How a worker ended."""

    name: str  # of its run
    how: How  # failed: by what a user can mend; it is not tried again
    message: str = ""


class Engine(Protocol):
    """Starts workers and says which have ended."""

    retries: int  # how often the sweep shall start a run again that died; 0 where the engine does it itself

    def has_room(self) -> bool:
        """Whether another run can be started now."""

    def start(self, name: str) -> None: ...

    def ended(self) -> list[Ended]:
        """Those that ended since the last call; does not wait."""

    def running(self) -> list[str]: ...

    def stop(self) -> None:
        """Ask all to save and leave; returns at once."""

    def close(self) -> None:
        """End what still runs, and give everything back."""


def judged(place: Place, name: str, code: int) -> Ended:
    """What a worker's exit code means, with the reason that it left."""
    if code == REFUSED:
        return Ended(name, "failed", str(place.last_event(name).get("message", "")))
    if code in HOW:
        return Ended(name, HOW[code])
    return Ended(name, "died", last_words(place, name) or f"ended with code {code}")


def last_words(place: Place, name: str) -> str:
    """The last line that a run's workers printed: of a traceback it is the one that says what was wrong."""
    try:
        lines = place.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
