"""Bytes that stay where they are: windows into the file, and the cursor that `pickletools.genops` reads through."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError
from distill3d_eg3d.pickles.limits import KIB, Budget, Limits

KEPT_BYTES = 64  # longer bytes become a Span; numpy scalars are shorter, storages longer
KEPT_TEXT = 4 * KIB  # longer text becomes a TextSpan
WIDE_READS = {
    b"C": "bytes", b"B": "bytes", b"\x8e": "bytes", b"\x8c": "text", b"X": "text", b"\x8d": "text"
}  # fmt: skip
LINE_TEXTS = (b"V", b"S")  # UNICODE and STRING
TRUNCATED = f"it ends in the middle, so it is truncated. {DOWNLOAD}"


@dataclass(frozen=True, eq=False)
class Span:
    """`size` bytes of an open file, from `start`; nothing is read before `read`."""

    file: BinaryIO
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` of the span.

        Raises:
            PickleError: if they are not there.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise PickleError(TRUNCATED)
        self.file.seek(self.start + offset)
        content = self.file.read(count)
        if len(content) != count:
            raise PickleError(TRUNCATED)
        return content


@dataclass(frozen=True, eq=False)
class TextSpan:
    """A long text, left in the file as UTF-8: the source of a module, which nobody reads, or bytes of protocol 2."""

    span: Span


@dataclass(frozen=True, eq=False)
class EncodedText:
    """Bytes that were pickled as text, one character each, as protocol 2 does; made when they are asked for."""

    text: str | TextSpan


Blob = bytes | Span | EncodedText


def opened(blob: Blob, reading: Budget) -> Span:
    """The bytes of a blob as a span; bytes written as text are decoded into memory, which `reading` pays for.

    Raises:
        PickleError: if the text is not one of bytes.
    """
    if isinstance(blob, Span):
        return blob
    content = blob if isinstance(blob, bytes) else _decoded(blob, reading)
    return Span(BytesIO(content), 0, len(content))


def _decoded(blob: EncodedText, reading: Budget) -> bytes:
    try:
        if isinstance(blob.text, str):
            return blob.text.encode("latin-1")
        reading.spend(blob.text.span.size)
        return blob.text.span.read(0, blob.text.span.size).decode("utf-8", "surrogatepass").encode("latin-1")
    except UnicodeError:
        raise PickleError(f"it holds bytes written as text that are not bytes. {DOWNLOAD}") from None


class Cursor:
    """A file for `pickletools.genops` that refuses a read before it allocates, and leaves long bytes where they are.

    genops takes any object with `len` for the argument of a bytes opcode, so a `Span` passes through it.
    """

    def __init__(self, span: Span, limits: Limits):
        self.span = span
        self.limits = limits
        self.position = 0
        self.kept = Budget(limits.kept_bytes, "short texts")
        self.opcode: bytes | None = None
        self.last_size = 0  # of the last read: the argument's, once genops has read it

    def at_opcode(self) -> None:
        """Say that the next byte is an opcode: how much may be read after it depends on which."""
        self.opcode = None

    def tell(self) -> int:
        return self.position

    def left(self) -> int:
        return self.span.size - self.position

    def read(self, count: int) -> bytes | Span:
        """The next `count` bytes, or their span where they are the long argument of a bytes opcode.

        Raises:
            PickleError: if they are not there, or are more than the opcode's argument may have.
        """
        kind = WIDE_READS.get(self.opcode or b"")
        if count > self.left():
            raise PickleError(TRUNCATED)
        if kind != "bytes" and count > (self.limits.text_bytes if kind else KEPT_TEXT):
            raise PickleError(f"it holds a text or number of {count:,} bytes, longer than any checkpoint's. {DOWNLOAD}")
        self.last_size = count
        self.position += count
        if kind == "bytes" and count > KEPT_BYTES:
            return self.last()
        return self._kept(count)

    def readline(self) -> bytes:
        """The next line: a name of GLOBAL, or a number of protocol 0.

        Raises:
            PickleError: if it is longer than a name can be, or a text of protocol 0, whose decoding imports codecs.
        """
        if self.opcode in LINE_TEXTS:
            raise PickleError(f"it holds a text of protocol 0, which no checkpoint does. {DOWNLOAD}")
        ahead = self.span.read(self.position, min(self.left(), KEPT_TEXT))
        size = ahead.find(b"\n") + 1
        if not size:
            raise PickleError(f"it holds a line without an end. {DOWNLOAD}")
        if b"\\" in ahead[:size]:  # an escape: no name has one, and an unknown one would make a warning
            raise PickleError(f"it holds a name that is not one. {DOWNLOAD}")
        self.position += size
        self.kept.spend(size)
        return ahead[:size]

    def last(self) -> Span:
        """The window of the last read."""
        return Span(self.span.file, self.span.start + self.position - self.last_size, self.last_size)

    def _kept(self, count: int) -> bytes:
        content = self.span.read(self.position - count, count)
        if self.opcode is None:
            self.opcode = content
        elif KEPT_BYTES // 8 < count <= KEPT_TEXT:
            self.kept.spend(count)
        return content
