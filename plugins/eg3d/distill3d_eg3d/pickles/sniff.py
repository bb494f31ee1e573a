"""What a file is that is not a training pickle, by its first bytes."""

from __future__ import annotations

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError
from distill3d_eg3d.pickles.spans import Span

HEAD = 512
SNAPSHOT = "Give the training snapshot, a .pkl file, as it was published."
ZIP = (
    "it is a torch zip file (.pt or .pth), not a training pickle. Where it holds a state dict, give it as that; else: "
)
PROTOCOLS = range(2, 6)


def refuse_others(file: Span) -> None:
    """Let pickles of protocols 2 to 5 pass, by their first two bytes.

    Raises:
        PickleError: says what the file is: empty, a web page, a git-lfs pointer, a zip, safetensors, gzip, or unknown.
    """
    head = file.read(0, min(HEAD, file.size))
    if found := _other_kind(head, file.size):
        raise PickleError(found)
    if len(head) < 2 or head[0] != 0x80 or head[1] not in PROTOCOLS:
        raise PickleError(f"it is no pickle of protocol 2 to 5. {SNAPSHOT}")


def _other_kind(head: bytes, size: int) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return f"it is empty. {DOWNLOAD}"
    if start.startswith(b"<"):
        return f"it is a web page, as a failed download leaves one. {DOWNLOAD}"
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file itself. Fetch the file with: git lfs pull"
    if head.startswith(b"PK"):
        return ZIP + SNAPSHOT
    if _is_safetensors(head, size):
        return f"it is a safetensors file, which needs no conversion from a pickle. {SNAPSHOT}"
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip. Decompress it first with: gzip -d"
    return None


def _is_safetensors(head: bytes, size: int) -> bool:
    header = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and header <= size - 8
