"""What each opcode does to the machine. Opcodes without an entry here are refused by name.

Refused: EXT1, EXT2, EXT4 (a registry of this process), INST and OBJ (call a class or a function, as Python 2 did),
NEXT_BUFFER and READONLY_BUFFER (memory from outside of the file), UNICODE and STRING (protocol 0; by the cursor).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, REPORT, PickleError, shown
from distill3d_eg3d.pickles.records import Global, NumpyType, Record, TensorRef
from distill3d_eg3d.pickles.spans import KEPT_TEXT, TextSpan
from distill3d_eg3d.pickles.values import fresh_dict, fresh_set, key, made

if TYPE_CHECKING:
    from distill3d_eg3d.pickles.machine import Machine

Handler = Callable[["Machine", Any], None]
HANDLERS: dict[str, Handler] = {}
NEWEST_PROTOCOL = 5
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def opcode(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def invalid(what: str) -> PickleError:
    return PickleError(f"it {what}, which no pickler writes. {DOWNLOAD}")


# --- plain values ---------------------------------------------------------------------------------------------------


@opcode("PROTO")
def protocol(machine: Machine, argument: Any) -> None:
    if argument > NEWEST_PROTOCOL:
        raise PickleError(
            f"it is a pickle of protocol {argument}, and {NEWEST_PROTOCOL} is the newest known. {DOWNLOAD}"
        )


@opcode("FRAME")
def frame(machine: Machine, argument: Any) -> None:
    """A hint to buffer that many bytes; there is nothing to do."""


@opcode("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
@opcode("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
def literal(machine: Machine, argument: Any) -> None:
    machine.push(argument)


@opcode("BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
def text(machine: Machine, argument: Any) -> None:
    machine.push(TextSpan(machine.cursor.last()) if machine.cursor.last_size > KEPT_TEXT else argument)


def constant(make: Callable[[], Any]) -> Handler:
    return lambda machine, argument: machine.push(make())


HANDLERS.update(
    NONE=constant(lambda: None),
    NEWTRUE=constant(lambda: True),
    NEWFALSE=constant(lambda: False),
    EMPTY_TUPLE=constant(lambda: ()),
    EMPTY_LIST=constant(lambda: []),
    EMPTY_DICT=constant(lambda: {}),
    EMPTY_SET=constant(lambda: set()),
)


# --- the stack and the memo -----------------------------------------------------------------------------------------


@opcode("MARK")
def mark(machine: Machine, argument: Any) -> None:
    machine.push_mark()


@opcode("POP")
def pop(machine: Machine, argument: Any) -> None:
    machine.drop()


@opcode("POP_MARK")
def pop_mark(machine: Machine, argument: Any) -> None:
    machine.pop_mark()


@opcode("DUP")
def duplicate(machine: Machine, argument: Any) -> None:
    machine.push(machine.top())


@opcode("PUT", "BINPUT", "LONG_BINPUT")
def put(machine: Machine, argument: Any) -> None:
    machine.remember(argument)


@opcode("MEMOIZE")
def memoize(machine: Machine, argument: Any) -> None:
    machine.remember(len(machine.memo))


@opcode("GET", "BINGET", "LONG_BINGET")
def get(machine: Machine, argument: Any) -> None:
    machine.recall(argument)


# --- containers -----------------------------------------------------------------------------------------------------


def short_tuple(size: int) -> Handler:
    return lambda machine, argument: machine.push(machine.pop_many(size))


HANDLERS.update(TUPLE1=short_tuple(1), TUPLE2=short_tuple(2), TUPLE3=short_tuple(3))


@opcode("TUPLE")
def long_tuple(machine: Machine, argument: Any) -> None:
    machine.push(tuple(machine.pop_mark()))


@opcode("LIST")
def marked_list(machine: Machine, argument: Any) -> None:
    machine.push(machine.pop_mark())


@opcode("DICT")
def marked_dict(machine: Machine, argument: Any) -> None:
    machine.push(fresh_dict(pairs(machine.pop_mark())))


@opcode("FROZENSET")
def marked_frozenset(machine: Machine, argument: Any) -> None:
    machine.push(frozenset(fresh_set(machine.pop_mark())))


@opcode("APPEND")
def append(machine: Machine, argument: Any) -> None:
    extend_list(machine, [machine.pop()])


@opcode("APPENDS")
def appends(machine: Machine, argument: Any) -> None:
    extend_list(machine, machine.pop_mark())


def extend_list(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Record):  # of an inert list nothing is read
        raise invalid("appends to what is no list")


@opcode("SETITEM")
def setitem(machine: Machine, argument: Any) -> None:
    fill_dict(machine, list(machine.pop_many(2)))


@opcode("SETITEMS")
def setitems(machine: Machine, argument: Any) -> None:
    fill_dict(machine, machine.pop_mark())


def fill_dict(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, dict):
        target.update(fresh_dict(pairs(items)))
    elif not isinstance(target, Record):  # of an inert mapping nothing is read
        raise invalid("sets items of what is no dict")


@opcode("ADDITEMS")
def additems(machine: Machine, argument: Any) -> None:
    items = machine.pop_mark()
    target = machine.top()
    if isinstance(target, set):
        target.update(key(item) for item in items)
    elif not isinstance(target, Record):  # of an inert set nothing is read
        raise invalid("adds items to what is no set")


def pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise invalid("has a key without a value")
    return list(zip(items[::2], items[1::2]))


# --- names and what is made of them ---------------------------------------------------------------------------------


def named(module: Any, name: Any) -> Global:
    if not all(isinstance(part, str) and len(part) <= 255 and DOTTED.fullmatch(part) for part in (module, name)):
        raise invalid(f"names {shown(name)} of {shown(module)}")
    return Global(module, name)


@opcode("GLOBAL")
def global_line(machine: Machine, argument: Any) -> None:
    machine.push(named(*argument.split(" ", 1)))  # genops joins the two lines with a space


@opcode("STACK_GLOBAL")
def stack_global(machine: Machine, argument: Any) -> None:
    machine.push(named(*machine.pop_many(2)))


@opcode("REDUCE")
def call(machine: Machine, argument: Any) -> None:
    function, arguments = machine.pop_many(2)
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise invalid("calls something that is not a name")
    if function.dotted not in machine.calls:
        raise PickleError(f"it calls {shown(function.dotted)}, which no known checkpoint does. {REPORT}")
    machine.push(machine.calls[function.dotted](arguments, machine.opcodes))


@opcode("NEWOBJ")
def new_object(machine: Machine, argument: Any) -> None:
    machine.push(made(machine.pop_many(2)[0]))


@opcode("NEWOBJ_EX")
def new_object_with_keywords(machine: Machine, argument: Any) -> None:
    machine.push(made(machine.pop_many(3)[0]))


@opcode("BUILD")
def build(machine: Machine, argument: Any) -> None:
    """Keep the state of a record. A `__setstate__` is never called, and no attribute is ever set."""
    state = machine.pop()
    target = machine.top()
    if isinstance(target, Record) and target.state is None:
        target.state = state
    elif isinstance(target, NumpyType) and isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
        target.order = state[1]
    elif not isinstance(target, dict | TensorRef):  # attributes of an OrderedDict or a tensor: nothing reads them
        raise invalid("gives a state to what has none")


@opcode("PERSID", "BINPERSID")
def persistent_id(machine: Machine, argument: Any) -> None:
    if machine.persistent is None:
        raise PickleError(
            "it refers to objects outside of itself (persistent ids), as the inside of a torch file does. "
            "Give the training snapshot .pkl as it was published."
        )
    machine.push(machine.persistent(machine.pop() if argument is None else argument))
