"""A training pickle is read to exactly what torch's own state_dict says, in every protocol and spelling."""

from __future__ import annotations

import gc
import io
import pickletools
import tracemalloc

import numpy as np
import pytest
import torch
from pickle_writer import (
    OLD_SPELLINGS,
    OPTIONS,
    PLANES,
    Call,
    Name,
    New,
    dumped,
    easy_dict,
    generator,
    persistent,
    snapshot,
)

from distill3d_eg3d.pickles import read_generator
from distill3d_eg3d.pickles.spans import KEPT_TEXT, Span


@pytest.fixture
def read(tmp_path):
    """Write a pickle and read its generator."""

    def read(content):
        path = tmp_path / "snapshot.pkl"
        path.write_bytes(content if isinstance(content, bytes) else dumped(content))
        return read_generator(path)

    return read


def assert_same_tensors(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)  # dtype too
        assert found[name].is_contiguous()


@pytest.mark.parametrize("spellings", [{}, OLD_SPELLINGS], ids=["new", "old"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_equal_the_state_dict_of_the_module_that_was_pickled(read, protocol, spellings):
    """Strided, offset, half, integer, bool and scalar tensors among them; transient and absent buffers are left out."""
    model = generator()
    content = dumped(snapshot(model), protocol, spellings)
    assert (b"numpy.core" in content) == bool(spellings)

    found = read(content)

    assert_same_tensors(found.tensors, model.state_dict())
    assert {str(tensor.dtype) for tensor in found.tensors.values()} == {
        "torch.float32", "torch.float16", "torch.int64", "torch.bool"
    }  # fmt: skip


def test_the_live_options_are_read_beside_those_that_training_began_with(read):
    model = generator()
    model.rendering_kwargs = easy_dict({**OPTIONS, "depth_resolution": 24, "nested": easy_dict({"a": (1, 2.5)})})
    found = read(snapshot(model))
    assert found.class_name == "TriPlaneGenerator"
    assert found.neural_rendering_resolution == 32
    assert found.rendering_kwargs == {**OPTIONS, "depth_resolution": 24, "nested": {"a": (1, 2.5)}}
    assert found.init_kwargs == {"z_dim": 32, "rendering_kwargs": OPTIONS, "sr_kwargs": {"channel_max": 4.0}}
    assert type(found.init_kwargs["sr_kwargs"]["channel_max"]) is float
    assert type(found.rendering_kwargs["nested"]) is dict


def test_plane_axes_come_from_the_renderer_and_are_none_without(read):
    assert torch.equal(read(snapshot()).plane_axes, PLANES)
    model = generator()
    del model.renderer.plane_axes
    assert read(snapshot(model)).plane_axes is None


@pytest.mark.parametrize("code", ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_numpy_numbers_become_python_numbers(read, code, order):
    number = np.dtype(order + code).type(1)
    dtype = Call(Name("numpy", "dtype"), (code, False, True), (3, order, None, None, None, -1, -1, 0))
    raw = np.array([number], dtype=order + code).tobytes()
    model = generator()
    model.rendering_kwargs = {"x": Call(Name("numpy.core.multiarray", "scalar"), (dtype, raw))}
    value = read(snapshot(model)).rendering_kwargs["x"]
    assert value == 1 and type(value) in (bool, int, float)


def test_the_source_of_a_module_is_never_read(read):
    """Not even decoded into memory: what would end the process is a window into the file."""
    model = generator()
    source = "raise SystemExit('executed')\n" * 1000
    assert len(source) > KEPT_TEXT
    content = dumped(snapshot(model, D=persistent("DualDiscriminator", {}, source)))
    assert_same_tensors(read(content).tensors, model.state_dict())


def test_objects_of_unknown_classes_are_inert(read):
    """Also when they are filled, get a state with slots, or are called through copyreg."""
    stranger = New(Name("os", "system"), (None, {"slot": 1}), items={"key": 1})
    made = Call(Name("copy_reg", "_reconstructor"), (Name("a.b", "C"), Name("builtins", "object"), None), {"x": 1})
    extra = [
        stranger,
        made,
        Call(Name("torch", "device"), ("cuda", 0)),
        Name("torch", "float16"),
        {1, 2},
        frozenset("a"),
    ]
    extra += [Call(Name("__builtin__", "set"), ([1, 2],)), 1 + 2j, b"", 2**100, torch.Size([3])]
    model = generator()
    assert_same_tensors(read(snapshot(model, augment_pipe=extra)).tensors, model.state_dict())


def test_weights_of_other_networks_are_not_read(read, monkeypatch):
    """Their storages may even be damaged; and only the tensors of G_ema are ever asked of the file."""
    model, lengths = generator(), []
    original = Span.read
    monkeypatch.setattr(
        Span, "read", lambda span, offset, count: lengths.append(count) or original(span, offset, count)
    )
    damaged = Call(Name("torch.storage", "_load_from_bytes"), (b"x" * 300,))
    tensor = Call(Name("torch._utils", "_rebuild_tensor_v2"), (damaged, 0, (2,), (1,), False, None))
    large = torch.full((50_000,), 1.0)
    found = read(snapshot(model, D=persistent("DualDiscriminator", {"_parameters": {"a": tensor, "b": large}})))
    assert_same_tensors(found.tensors, model.state_dict())
    assert max(lengths) < 5_000


@pytest.mark.parametrize(("protocol", "copies"), [(2, 5), (4, 1)])
def test_memory_is_that_of_the_weights_of_the_generator(tmp_path, protocol, copies):
    """Its largest weight comes on top, once or, where it is text, five times; other networks' weights do not count."""
    model, path = generator(), tmp_path / "snapshot.pkl"
    model.backbone.b4.weight = torch.nn.Parameter(torch.randn(1 << 20))
    model.decoder.net[0].weight = torch.nn.Parameter(torch.randn(1 << 20))
    others = {name: torch.randn(1 << 20) for name in "abcdefgh"}
    path.write_bytes(dumped(snapshot(model, G=persistent("TriPlaneGenerator", {"_parameters": others})), protocol))
    gc.collect()
    tracemalloc.start()
    found = read_generator(path)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    weights = sum(tensor.nbytes for tensor in found.tensors.values()) / 2**20
    assert 8 < weights < 9
    assert weights < peak < weights + copies * 4 + 10  # the others would be 32 MiB


def test_tied_weights_are_read_as_tensors_of_their_own(read):
    model = generator()
    model.decoder.net[2].bias = model.backbone.b4.affine.bias = torch.nn.Parameter(torch.randn(3))
    found = read(snapshot(model)).tensors
    assert torch.equal(found["decoder.net.2.bias"], found["backbone.b4.affine.bias"])
    assert found["decoder.net.2.bias"].data_ptr() != found["backbone.b4.affine.bias"].data_ptr()


def test_untyped_storages_take_the_dtype_of_their_tensor(read):
    model = generator()
    file = io.BytesIO()
    numbers = torch.tensor([1, 40_000], dtype=torch.uint16)
    torch.save(numbers.untyped_storage(), file, _use_new_zipfile_serialization=False)
    storage = Call(Name("torch.storage", "_load_from_bytes"), (file.getvalue(),))
    arguments = (storage, 0, (2,), (1,), False, Call(Name("collections", "OrderedDict")), Name("torch", "uint16"))
    content = snapshot(persistent_with_buffer(model, Call(Name("torch._utils", "_rebuild_tensor_v3"), arguments)))
    assert torch.equal(read(content).tensors["backbone.extra"], numbers)


def persistent_with_buffer(model, written):
    """The generator as pickled, with one more buffer in its backbone that is written as told."""
    state = dict(model.__dict__)
    backbone = model.backbone.__dict__
    backbone = persistent("StyleGAN2Backbone", {**backbone, "_buffers": {**backbone["_buffers"], "extra": written}})
    state["_modules"] = {**state["_modules"], "backbone": backbone}
    return persistent("TriPlaneGenerator", {**state, "_init_args": ()})


def test_an_old_torch_that_knew_no_transient_buffers_is_read(read):
    model = generator()
    for module in model.modules():
        module.__dict__.pop("_non_persistent_buffers_set")
    assert "backbone.b4.scratch" in read(snapshot(model)).tensors


def test_the_written_snapshot_has_the_structure_of_the_official_one():
    """Otherwise the tests above would prove little: the globals are those of the fact sheet, and nothing else."""
    names, strings = set(), []
    for opcode, argument, _ in pickletools.genops(dumped(snapshot(), protocol=3)):
        names |= {argument} if opcode.name == "GLOBAL" else set()
        strings += [argument] if isinstance(argument, str) else []
    assert {name.replace("numpy._core", "numpy.core") for name in names} == {
        "torch_utils.persistence _reconstruct_persistent_obj", "dnnlib.util EasyDict", "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch.storage _load_from_bytes",
        "numpy.core.multiarray scalar", "numpy dtype", "torch.nn.modules.container Sequential",
        "torch.nn.modules.activation Softplus", "training.triplane OSGDecoder", "training.triplane ImportanceRenderer",
        "builtins set",
    }  # fmt: skip
    assert strings.count("module_src") == 1 and strings.count("TriPlaneGenerator") == 1  # memoised, as it does
