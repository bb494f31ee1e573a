"""Nothing of a stranger's safetensors file is taken before its size and its checksum are right."""

import functools
import hashlib
import json
import os
import tracemalloc

import pytest
import torch
from safetensors.torch import save

from distill3d.errors import PackError
from distill3d.packs import bounded
from distill3d.packs.bounded import LARGEST_HEADER, MOST_TENSORS, read_adapter
from distill3d.packs.config import ADAPTER, FILES

DATA = bytes(range(24))  # six float32 (2, 3)
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def file_of(header, data=DATA, length=None):
    """The bytes of a file with this header: text, bytes, or a table."""
    if isinstance(header, dict):
        header = json.dumps(header)
    header = header.encode() if isinstance(header, str) else header
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def read(tmp_path, content, sha256=None, size=None):
    path = tmp_path / ADAPTER
    path.write_bytes(content)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return read_adapter(path, sha256=digest, size=len(content) if size is None else size, source="someone/pack")


def refused(tmp_path, content, **stated):
    with pytest.raises(PackError) as refusal:
        read(tmp_path, content, **stated)
    message = str(refusal.value)
    assert "someone/pack" in message and message.endswith(".") and "\n" not in message and len(message) < 400
    return message


def test_what_safetensors_wrote_is_read(tmp_path):
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(5).half(),
        "c": torch.randn(2, 1, 2).bfloat16(),
        "d": torch.tensor(2.0, dtype=torch.float64),
        "e": torch.arange(-128, 128).to(torch.int8),
        "none": torch.zeros(0, 7).half(),
        "": torch.ones(1),
        'with "quotes" and é': torch.ones(2),
    }
    found = read(tmp_path, save(tensors, metadata={"format": "pt"}))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_file_without_tensors_is_one(tmp_path):
    assert read(tmp_path, save({})) == {}


def test_the_file_of_the_tests_is_good_before_it_is_made_bad(tmp_path):
    assert read(tmp_path, file_of({"a": ENTRY}))["a"].shape == (2, 3)


HEADERS = {
    "no table": ("[]", "it is no table"),
    "nothing": ("", "it is no table"),
    "spaces before it": ('  {"a": 1}', "it is no table"),
    "half a table": ('{"a": ', "cannot be read"),
    "two tables": ("{}{}", "cannot be read"),
    "no UTF-8": (b'{"\xff": 1}', "cannot be read"),
    "a name twice": ('{"a": 1, "a": 2}', "'a' stands in it twice"),
    "a field twice": ('{"a": {"dtype": "F32", "dtype": "F16"}}', "'dtype' stands in it twice"),
    "not a number": ('{"a": NaN}', "NaN is no JSON"),
    "a number without end": ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
    "nested lists": ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
    "nested tables": ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "__metadata__ is more than texts"),
    "metadata that is no table": ({"__metadata__": "a"}, "__metadata__ is more than texts"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_no_strict_table_is_refused(tmp_path, name):
    header, message = HEADERS[name]
    assert message in refused(tmp_path, file_of(header))


ENTRIES = {
    "no table": (7, "not told of by"),
    "a field is missing": ({"dtype": "F32", "shape": [2, 3]}, "not told of by"),
    "a field is too many": ({**ENTRY, "more": 1}, "not told of by"),
    "integers": ({**ENTRY, "dtype": "I32"}, "has dtype 'I32', it must be one of F64, F32, F16, BF16, I8"),
    "truths": ({"dtype": "BOOL", "shape": [24], "data_offsets": [0, 24]}, "has dtype 'BOOL'"),
    "eight bits": ({"dtype": "F8_E4M3", "shape": [24], "data_offsets": [0, 24]}, "has dtype 'F8_E4M3'"),
    "small letters": ({**ENTRY, "dtype": "f32"}, "has dtype 'f32'"),
    "a dtype that is a list": ({**ENTRY, "dtype": ["F32"]}, r"has dtype ['F32']"),
    "a shape that is a number": ({**ENTRY, "shape": 6}, "has shape 6"),
    "a size below 0": ({**ENTRY, "shape": [-2, -3]}, "has shape [-2, -3]"),
    "a broken size": ({**ENTRY, "shape": [2.0, 3]}, "has shape [2.0, 3]"),
    "a truth for a size": ({**ENTRY, "shape": [True, 6]}, "has shape [True, 6]"),
    "a size as text": ({**ENTRY, "shape": ["6"]}, "has shape ['6']"),
    "a size beyond all": ({**ENTRY, "shape": [10**300]}, "has shape [1000"),
    "nine axes": ({**ENTRY, "shape": [1] * 7 + [2, 3]}, "at most 8 whole numbers"),
    "a product that wraps round": ({**ENTRY, "shape": [2**32, 2**32, 0]}, "has 24 bytes, its shape"),
    "more numbers than bytes": ({**ENTRY, "shape": [2, 4]}, "has 24 bytes, its shape and dtype need another number"),
    "fewer numbers than bytes": ({**ENTRY, "shape": [2, 2]}, "has 24 bytes, its shape and dtype need another number"),
    "one offset": ({**ENTRY, "data_offsets": [24]}, "lies at [24]"),
    "three offsets": ({**ENTRY, "data_offsets": [0, 24, 24]}, "lies at [0, 24, 24]"),
    "an offset below 0": ({**ENTRY, "data_offsets": [-24, 0]}, "lies at [-24, 0]"),
    "offsets the wrong way": ({**ENTRY, "data_offsets": [24, 0]}, "has -24 bytes"),
    "offsets beyond the file": ({**ENTRY, "data_offsets": [1000, 1024]}, "leaves a hole"),
    "a hole at the start": ({**ENTRY, "shape": [5], "data_offsets": [4, 24]}, "leaves a hole"),
    "a rest at the end": ({**ENTRY, "shape": [5], "data_offsets": [0, 20]}, "take 20 bytes, and it has 24"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_tensor_that_is_not_told_of_exactly_is_refused(tmp_path, name):
    entry, message = ENTRIES[name]
    assert message in refused(tmp_path, file_of({"a": entry}))


@pytest.mark.parametrize(
    ("second", "message"),
    [([8, 24], "'b' overlaps"), ([0, 12], "overlaps"), ([16, 24], "'b' leaves a hole"), ([12, 28], "take 28 bytes")],
)
def test_tensors_that_do_not_follow_one_another_are_refused(tmp_path, second, message):
    entries = {
        "a": {"dtype": "F16", "shape": [6], "data_offsets": [0, 12]},
        "b": {"dtype": "F16", "shape": [(second[1] - second[0]) // 2], "data_offsets": second},
    }
    assert message in refused(tmp_path, file_of(entries))


def test_tensors_of_no_numbers_may_lie_between_others(tmp_path):
    nothing = {"dtype": "F16", "shape": [0, 3], "data_offsets": [12, 12]}
    entries = {
        "b": {"dtype": "F16", "shape": [6], "data_offsets": [12, 24]},
        "a": {"dtype": "F16", "shape": [6], "data_offsets": [0, 12]},
        "z": nothing,
    }
    assert read(tmp_path, file_of(entries))["z"].shape == (0, 3)
    assert "'z' overlaps" in refused(tmp_path, file_of({**entries, "z": {**nothing, "data_offsets": [6, 6]}}))


@pytest.mark.parametrize("length", [27, 10_000, 2**40, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path, length):
    assert "longer than the file" in refused(tmp_path, file_of("{}", length=length))


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x00" * 7])
def test_a_file_too_short_for_a_header_is_refused(tmp_path, content):
    assert "longer than the file" in refused(tmp_path, content)


def test_a_header_of_more_than_a_mebibyte_is_refused_before_it_is_read(tmp_path):
    content = file_of(" " * (64 << 20))
    assert len(content) > 64 * LARGEST_HEADER
    tracemalloc.start()
    message = refused(tmp_path, content, sha256="0" * 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "at most 1048576 are allowed" in message
    assert peak < LARGEST_HEADER


def test_a_header_of_a_mebibyte_is_read(tmp_path):
    header = json.dumps({"a": ENTRY})
    assert "a" in read(tmp_path, file_of(header + " " * (LARGEST_HEADER - len(header))))
    assert "are allowed" in refused(tmp_path, file_of(header + " " * (LARGEST_HEADER + 1 - len(header))))


def test_numbers_are_not_read_when_the_header_is_wrong(tmp_path):
    entry = {"dtype": "F32", "shape": [16 << 20], "data_offsets": [0, (64 << 20) - 4]}
    content = file_of({"a": entry}, data=bytes(64 << 20))
    tracemalloc.start()
    refused(tmp_path, content, sha256="0" * 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LARGEST_HEADER


def test_too_many_tensors_are_refused(tmp_path):
    nothing = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
    assert len(read(tmp_path, file_of({str(i): nothing for i in range(MOST_TENSORS)}, data=b""))) == MOST_TENSORS
    assert "at most 10000" in refused(tmp_path, file_of({str(i): nothing for i in range(MOST_TENSORS + 1)}, data=b""))


def test_the_size_that_was_stated_is_the_only_one(tmp_path):
    content = file_of({"a": ENTRY})
    for size in (0, len(content) - 1, len(content) + 1, 2**50):
        message = refused(tmp_path, content, size=size)
        assert f"{size}" in message
    assert "packs have at most" in refused(tmp_path, content, size=FILES[ADAPTER] + 1)


def test_another_file_of_the_same_size_is_refused(tmp_path):
    content = file_of({"a": ENTRY})
    message = refused(tmp_path, content[:-1] + b"\x00", sha256=hashlib.sha256(content).hexdigest())
    assert "sha256" in message and "do not trust it" in message


def test_no_tensor_is_made_before_the_checksum_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "_tensor", lambda *made_of: pytest.fail("was made"))
    assert "sha256" in refused(tmp_path, file_of({"a": ENTRY}), sha256="0" * 64)


def test_memory_holds_the_numbers_once(tmp_path):
    """And they are those that have the checksum, whatever becomes of the file."""
    content = save({name: torch.full((4 << 20,), value) for name, value in (("a", 1.0), ("b", 2.0))})
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / ADAPTER).write_bytes(content)
    tracemalloc.start()
    tensors = read_adapter(tmp_path / ADAPTER, sha256=digest, size=len(content), source="someone/pack")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * len(content)
    (tmp_path / ADAPTER).write_bytes(bytes(len(content)))
    assert all((tensors[name] == value).all() for name, value in (("a", 1.0), ("b", 2.0)))


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path, monkeypatch):
    content, check = file_of({"a": ENTRY}), bounded._check_entries

    def cut(*given):
        os.truncate(tmp_path / ADAPTER, len(content) - 4)
        check(*given)

    monkeypatch.setattr(bounded, "_check_entries", cut)
    monkeypatch.setattr(type(tmp_path), "open", functools.partialmethod(open, buffering=0))
    assert "became shorter" in refused(tmp_path, content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, dtype):
    tensor = torch.zeros(3, 3, dtype=dtype)
    tensor[2, 1] = value
    assert "'b' in someone/pack holds numbers that are not finite" in refused(
        tmp_path, save({"a": torch.ones(2), "b": tensor})
    )


def test_what_is_no_file_is_refused(tmp_path):
    def refusal(path):
        with pytest.raises(PackError) as refused:
            read_adapter(path, sha256="0" * 64, size=10, source="someone/pack")
        return str(refused.value)

    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "is no file" in refusal(tmp_path / "folder")
    for name in ("nowhere", "nothing", "circle", "folder/below", "\0", "n" * 300):
        assert "someone/pack has no adapter.safetensors" in refusal(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackError, match="is no file"):
        read_adapter(tmp_path / "pipe", sha256="0" * 64, size=0, source="someone/pack")


def test_a_link_to_the_file_is_followed(tmp_path):
    """A snapshot of the Hub's cache is made of links."""
    content = file_of({"a": ENTRY})
    (tmp_path / "blob").write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    digest = hashlib.sha256(content).hexdigest()
    assert "a" in read_adapter(tmp_path / "link", sha256=digest, size=len(content), source="someone/pack")
