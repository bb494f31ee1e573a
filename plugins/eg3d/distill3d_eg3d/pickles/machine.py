"""The interpreter: a stack, a memo, and one opcode after the other.

It does what the unpickler's machine does with plain values, and makes records of everything else. A function may be
called only if it is in the table it is given; a class is only ever a name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError
from distill3d_eg3d.pickles.limits import Budget, Limits
from distill3d_eg3d.pickles.opcodes import HANDLERS
from distill3d_eg3d.pickles.spans import Cursor

Call = Callable[[tuple[Any, ...], Budget], Any]  # what stands for a function: its arguments, and the opcodes left
INVALID = f"its opcodes do not fit together. {DOWNLOAD}"
MARK = object()


class Machine:
    """Interprets one pickle.

    Args:
        cursor: where it starts; it stands behind the pickle's STOP afterwards.
        calls: what to do instead of each function that may be called, by dotted name.
        limits: caps on opcodes, memo and stack.
        persistent: what to do with a persistent id; without it they are refused.
    """

    def __init__(
        self,
        cursor: Cursor,
        calls: Mapping[str, Call],
        limits: Limits,
        persistent: Callable[[Any], Any] | None = None,
    ):
        self.cursor = cursor
        self.calls = calls
        self.limits = limits
        self.persistent = persistent
        self.opcodes = Budget(limits.opcodes, "opcodes")
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Interpret up to STOP and give back the object.

        Raises:
            PickleError: for a damaged pickle, one that exceeds a limit, or one that calls what is not in `calls`.
        """
        steps = pickletools.genops(self.cursor)  # type: ignore[arg-type]
        while True:
            name, argument = self._next(steps)
            self.opcodes.spend()
            if name == "STOP":
                return self.result()
            handler = HANDLERS.get(name)
            if handler is None:
                raise PickleError(f"it uses the opcode {name}, which no checkpoint needs. {DOWNLOAD}")
            handler(self, argument)

    def _next(self, steps: Any) -> tuple[str, Any]:
        self.cursor.at_opcode()
        try:
            opcode, argument, _ = next(steps)
        except PickleError:
            raise
        except Exception as error:  # the standard decoder raises whatever its parts do; each means a damaged argument
            raise PickleError(
                f"it holds an opcode that cannot be decoded ({type(error).__name__}). {DOWNLOAD}"
            ) from None
        return opcode.name, argument

    def result(self) -> Any:
        """The one value that is left."""
        if len(self.stack) != 1:
            raise PickleError(INVALID)
        return self.pop()

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        if len(self.stack) >= self.limits.stack:
            raise PickleError(f"it keeps more than {self.limits.stack:,} values waiting. {DOWNLOAD}")
        self.stack.append(value)

    def push_mark(self) -> None:
        """Put a mark on the stack, up to which a container's items reach."""
        self.push(MARK)

    def drop(self) -> None:
        """Throw the topmost value away, or a mark."""
        if not self.stack:
            raise PickleError(INVALID)
        self.stack.pop()

    def pop(self) -> Any:
        """Take the topmost value; a mark is none."""
        if not self.stack or self.stack[-1] is MARK:
            raise PickleError(INVALID)
        return self.stack.pop()

    def top(self) -> Any:
        """The topmost value, which stays."""
        if not self.stack or self.stack[-1] is MARK:
            raise PickleError(INVALID)
        return self.stack[-1]

    def pop_many(self, count: int) -> tuple[Any, ...]:
        """The topmost `count` values, in the order in which they were pushed."""
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_mark(self) -> list[Any]:
        """All values above the last mark, and the mark with them."""
        values = []
        while self.stack and self.stack[-1] is not MARK:
            values.append(self.stack.pop())
        if not self.stack:
            raise PickleError(INVALID)
        self.stack.pop()
        values.reverse()
        return values

    def remember(self, index: int) -> None:
        """Put the topmost value into the memo."""
        if not 0 <= index < self.limits.memo_index:
            raise PickleError(
                f"it numbers a value beyond {self.limits.memo_index:,}, more than a checkpoint has. {DOWNLOAD}"
            )
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        """Push a value of the memo."""
        if index not in self.memo:
            raise PickleError(f"it refers to a value that it does not hold. {DOWNLOAD}")
        self.push(self.memo[index])
