"""Files that are not a generator's pickle: one sentence each that says what the file is and what to do."""

from __future__ import annotations

import gzip
import io

import pytest
import torch
from pickle_writer import Call, Name, New, dumped, generator, persistent, snapshot
from safetensors.torch import save

from distill3d.errors import WeightsError
from distill3d_eg3d.pickles import Limits, PickleError, read_generator


def saved(value, zipped):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def altered(**changes):
    """A snapshot whose generator has other attributes; `...` takes one away."""
    model = generator()
    state = {**model.__dict__, **changes}
    return snapshot(persistent("TriPlaneGenerator", {name: value for name, value in state.items() if value is not ...}))


def weight(storage, offset, shape, stride, function="_rebuild_tensor_v2"):
    return Call(Name("torch._utils", function), (storage, offset, shape, stride, False, None))


def storage(content=None, numel=6):
    content = content or saved(torch.zeros(numel)._typed_storage(), zipped=False)
    return Call(Name("torch.storage", "_load_from_bytes"), (content,))


def with_weight(value):
    """A snapshot with one more tensor in its generator."""
    return altered(_parameters={"extra": value})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FLOATS = saved(torch.zeros(6)._typed_storage(), zipped=False)
BIG_ENDIAN = FLOATS.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
STRANGE = FLOATS.replace(b"torch\nFloatStorage", b"torch\nEvil9Storage")
ONE = torch.zeros(1)
BAD_INPUT = {
    "empty": (b"", "it is empty. Download it again."),
    "web page": (b"\n<!DOCTYPE html><html>", "it is a web page, as a failed download leaves one"),
    "git-lfs": (LFS, "it is a git-lfs pointer, not the file itself. Fetch the file with: git lfs pull"),
    "torch zip": (lambda: saved({"a": torch.zeros(3)}, True), "it is a torch zip file (.pt or .pth)"),
    "old torch": (lambda: saved({"a": torch.zeros(3)}, False), "it is an old torch.save file"),
    "safetensors": (lambda: save({"a": torch.zeros(3)}), "it is a safetensors file"),
    "gzip": (lambda: gzip.compress(dumped(snapshot())), "it is compressed with gzip"),
    "text": (b"hello", "it is no pickle of protocol 2 to 5"),
    "protocol 0": (b"(dp0\n.", "it is no pickle of protocol 2 to 5"),
    "truncated": (lambda: dumped(snapshot())[:-1000], "it ends in the middle, so it is truncated"),
    "only a mark": (b"\x80\x02(.", "its opcodes do not fit together"),
    "unknown opcode": (b"\x80\x02\xff.", "it holds an opcode that cannot be decoded (ValueError)"),
    "list": ([1, 2], "it holds a list instead of a training snapshot's dict with G_ema"),
    "network alone": (generator, "it holds a 'TriPlaneGenerator' instead of a training snapshot's dict"),
    "discriminator": (lambda: {"D": snapshot()["D"]}, "it has no G_ema, only 'D'; a discriminator alone cannot draw"),
    "empty dict": ({}, "it has no G_ema, only nothing"),
    "None": ({"G_ema": None}, "its G_ema is a NoneType, not a network"),
    "number": ({"G_ema": 3}, "its G_ema is 3, not a network"),
    "D as G_ema": (lambda: snapshot(snapshot()["D"]), "its G_ema is a 'DualDiscriminator', not a tri-plane generator"),
    "no module": ({"G_ema": New(Name("a", "B"))}, "a module lacks its table _modules, so it is no torch module"),
    "no options": (lambda: altered(rendering_kwargs=...), "lacks rendering_kwargs, so it is not a tri-plane"),
    "no resolution": (lambda: altered(neural_rendering_resolution=...), "lacks neural_rendering_resolution"),
    "no arguments": (lambda: altered(_init_kwargs=...), "'TriPlaneGenerator', lacks _init_kwargs"),
    "options a list": (lambda: altered(rendering_kwargs=[1]), "rendering_kwargs of its G_ema is a list, not a dict"),
    "option a tensor": (
        lambda: altered(_init_kwargs={"a": torch.zeros(2)}),
        "holds a value of type TensorRef",
    ),
    "option an object": (lambda: altered(_init_kwargs={"a": [New(Name("a", "B"))]}), "an object of 'a.B'"),
    "option a dtype": (lambda: altered(_init_kwargs={"a": torch.float32}), "holds 'torch.float32', where only plain"),
    "half characters": (lambda: altered(_init_kwargs={"a": "\ud800"}), "_init_kwargs holds '\\ud800'"),
    "option unprintable": (lambda: altered(_init_kwargs={"\x1b[2J": 1}), "an option called '\\x1b[2J'"),
    "non-square": (lambda: altered(neural_rendering_resolution=(64, 32)), "is a tuple, not one number of pixels"),
    "resolution 0": (
        lambda: altered(neural_rendering_resolution=0),
        "rendering_resolution is 0, not one number",
    ),
    "resolution true": (lambda: altered(neural_rendering_resolution=True), "resolution is True"),
    "resolution nan": (lambda: altered(neural_rendering_resolution=float("nan")), "resolution is nan"),
    "unknown function": (
        lambda: altered(x=Call(Name("a.b", "newer"))),
        "it calls 'a.b.newer', which no known",
    ),
    "persistent id": (b"\x80\x02K\x01Q.", "it refers to objects outside of itself (persistent ids)"),
    "extension": (b"\x80\x02\x82\x01.", "it uses the opcode EXT1, which no checkpoint needs"),
    "protocol 9": (b"\x80\x02\x80\x09N.", "it is a pickle of protocol 9, and 5 is the newest known"),
    "no class name": (
        lambda: snapshot(persistent("a b", {})),
        "_reconstruct_persistent_obj with arguments that",
    ),
    "escaped name": (b"\x80\x02c\\q\nb\n.", "it holds a name that is not one"),
    "protocol 0 text": (b"\x80\x02Va\n.", "it holds a text of protocol 0"),
    "list as key": (b"\x80\x02}]K\x01s.", "it uses a list as a key, which no checkpoint does"),
    "no tensor": (lambda: with_weight(3), "'extra' is no tensor"),
    "no child": (lambda: altered(_modules={**generator()._modules, "extra": 3}), "'extra' is no module"),
    "dotted name": (lambda: altered(_parameters={"a.b": torch.zeros(1)}), "'G_ema' holds something called 'a.b'"),
    "foreign name": (lambda: altered(_parameters={"\xe9": ONE}), "'G_ema' holds something called '\\xe9'"),
    "twice": (
        lambda: altered(_parameters={"a": ONE}, _buffers={"a": ONE}),
        "two tensors called 'a'",
    ),
    "beyond": (lambda: with_weight(weight(storage(), 1, (6,), (1,))), "a tensor that reaches beyond its storage"),
    "beyond by strides": (lambda: with_weight(weight(storage(), 0, (2, 2), (4, 2))), "reaches beyond its storage"),
    "expanded": (lambda: with_weight(weight(storage(), 0, (9,), (0,))), "a tensor whose elements overlap"),
    "negative stride": (lambda: with_weight(weight(storage(), 5, (3,), (-1,))), "a size out of range"),
    "nine dimensions": (
        lambda: with_weight(weight(storage(), 0, (1,) * 9, (1,) * 9)),
        "of 9 dimensions, and 8",
    ),
    "two strides": (lambda: with_weight(weight(storage(), 0, (1,), (1, 1))), "with arguments that it never has"),
    "half a storage": (lambda: with_weight(weight(storage(FLOATS[:-4]), 0, (1,), (1,))), "not as long as it says"),
    "more storage": (lambda: with_weight(weight(storage(FLOATS + b"1"), 0, (1,), (1,))), "not as long as it says"),
    "big endian": (lambda: with_weight(weight(storage(BIG_ENDIAN), 0, (1,), (1,))), "on a big-endian machine"),
    "unknown storage": (
        lambda: with_weight(weight(storage(STRANGE), 0, (1,), (1,))),
        "type 'torch.Evil9Storage'",
    ),
    "zip storage": (lambda: with_weight(weight(storage(saved(1, True)), 0, (1,), (1,))), "cannot be decoded"),
    "no storage": (
        lambda: with_weight(weight(storage(dumped(1) * 5), 0, (1,), (1,))),
        "not an old torch.save of one",
    ),
    "axes": (
        lambda: altered_axes(torch.zeros(3, 2)),
        "is a tensor (3, 2), not a tensor (3, 3, 3)",
    ),
}


def altered_axes(axes):
    model = generator()
    model.renderer.plane_axes = axes
    return snapshot(model)


@pytest.mark.parametrize("name", BAD_INPUT)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, name):
    """With the file's name first and, last, what to do; and foreseen, so without another error behind it."""
    made, expected = BAD_INPUT[name]
    value = made() if callable(made) else made
    path = tmp_path / "given.pkl"
    path.write_bytes(value if isinstance(value, bytes) else dumped(value))

    with pytest.raises(PickleError) as caught:
        read_generator(path)

    message = str(caught.value)
    assert isinstance(caught.value, WeightsError)
    assert message.startswith(f"Cannot read {path}: ") and expected in message
    assert message.isascii() and message.isprintable() and len(message) < 400
    assert any(
        advice in message
        for advice in ("ownload it", "Give the", "etch the", "ompress it first", "Get the", "Write it")
    )
    assert caught.value.__cause__ is None


def test_every_attribute_that_the_sentences_alter_is_read_when_it_is_not_altered(tmp_path):
    """Without this the table above might describe files that are broken in some other way."""
    path = tmp_path / "given.pkl"
    path.write_bytes(dumped(altered(_parameters={"extra": weight(storage(), 0, (2, 3), (1, 2))})))
    assert torch.equal(read_generator(path).tensors["extra"], torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["missing.pkl", ".", "nul\0.pkl"])
def test_a_path_that_cannot_be_opened_is_our_error(tmp_path, name):
    with pytest.raises(PickleError, match=r"Cannot (open|read) "):
        read_generator(tmp_path / name)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(file_bytes=1000), "bytes, more than the 1,000 expected at most"),
        (Limits(opcodes=100), "it asks for more opcodes than any checkpoint needs"),
        (Limits(memo_index=20), "it numbers a value beyond 20"),
        (Limits(stack=3), "it keeps more than 3 values waiting"),
        (Limits(text_bytes=10), "it holds a text or number of"),
        (Limits(kept_bytes=100), "it asks for more short texts"),
        (Limits(nesting=2), "nested deeper than"),
        (Limits(values=5), "it asks for more modules, tensors and options"),
    ],
    ids=lambda value: "" if isinstance(value, Limits) else value[:30],
)
def test_each_limit_refuses_what_exceeds_it(tmp_path, limits, expected):
    path = tmp_path / "given.pkl"
    path.write_bytes(dumped(snapshot()))
    read_generator(path)
    with pytest.raises(PickleError, match=expected):
        read_generator(path, limits=limits)
