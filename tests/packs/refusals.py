"""What fails is one sentence without a token."""

import re
import socket

import pytest

from distill3d.errors import HubError

TOKENS = ("hf_owner", "hf_reader", "hf_other", "hf_wrong")


def refused(act, pattern, kind=HubError):
    """What an act says that fails: one line, the pattern in it, no token anywhere."""
    with pytest.raises(kind) as error:
        act()
    said = str(error.value)
    assert re.search(pattern, said) and "\n" not in said, said
    assert not any(token in said for token in TOKENS), said
    return said


def down():
    """The address of a Hub that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
