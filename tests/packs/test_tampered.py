"""Packs that somebody changed, by accident or not: each is refused with one sentence, and nothing of it is used.

Where a checksum would catch a change, it is made twice: once with the old checksum and size in config.json, once with
new ones, as whoever means harm would write them.
"""

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save

from distill3d.draws import Draws
from distill3d.errors import Distill3dError
from distill3d.models import load
from distill3d.packs.adapter import encode
from distill3d.packs.config import ADAPTER, CONFIG, SCHEMA, AdapterInfo, Base, PackConfig
from distill3d.runs import fingerprint
from tests.photo_runs import photo_toy_is_installed
from tests.toys import load_toy, toy

ROOT = Path(__file__).parents[2]
FULL, LOW_RANK = "full", "low-rank"
FACTORS = "layers.0.weight"  # stored as two factors in a low-rank pack


@pytest.fixture(autouse=True, scope="module")
def _toys():
    with photo_toy_is_installed():
        yield


def trained_by(renderer):
    """A change of rank 1 and a little noise for all that is trained."""
    generator = torch.Generator().manual_seed(0)
    trained = {}
    for name, tensor in renderer.trainable().items():
        change = 0.001 * torch.randn(tensor.shape, generator=generator)
        trained[name] = tensor.detach() + change + 0.1 * torch.ones(tensor.shape)
    return trained


class Pack:
    """What is in a pack's folder, to be changed before it is written."""

    def __init__(self, format=LOW_RANK, renderer=None):
        renderer = renderer or load_toy()
        stored = encode(dict(renderer.trainable()), trained_by(renderer), format)
        self.adapter = save(stored, metadata={"format": "pt"})
        content = PackConfig(
            style="zombie",
            prompt="a zombie",
            backbone="toy",
            base=Base("", fingerprint(load_toy())),
            adapter=AdapterInfo(format, "0" * 64, 0),
            method="ld",
            step=2,
        )
        self.config = {**json.loads(content.to_json()), **json.loads(json.dumps({"adapter": asdict(content.adapter)}))}
        self.seal()
        self.raw_config = None  # instead of `config`, bytes

    def seal(self):
        """Let config.json tell of the adapter as it is now."""
        self.config["adapter"] |= {"sha256": hashlib.sha256(self.adapter).hexdigest(), "size": len(self.adapter)}

    def write(self, folder):
        folder.mkdir()
        config = json.dumps(self.config).encode() if self.raw_config is None else self.raw_config
        (folder / CONFIG).write_bytes(config)
        (folder / ADAPTER).write_bytes(self.adapter)
        return folder

    @property
    def header(self):
        return json.loads(self.adapter[8 : 8 + struct.unpack("<Q", self.adapter[:8])[0]])

    @property
    def data(self):
        return self.adapter[8 + struct.unpack("<Q", self.adapter[:8])[0] :]

    @property
    def tensors(self):
        return load_bytes(self.adapter)


def refusal(folder):
    """The sentence with which a pack is refused; its folder is as it was before."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(Distill3dError) as refused:
        load(folder)
    message = str(refused.value)
    assert message.endswith((".", "?")) and "\n" not in message and 20 < len(message) < 400, message
    assert message.isprintable(), message
    assert sorted(path.name for path in folder.iterdir()) == before
    return message


@pytest.mark.parametrize("format", [FULL, "half", LOW_RANK])
def test_the_pack_is_good_before_it_is_changed(tmp_path, format):
    loaded, base = load(Pack(format).write(tmp_path / "pack")), load_toy()
    trained = trained_by(base)
    for name, parameter in loaded.trainable().items():
        assert not torch.equal(parameter, dict(base.named_parameters())[name])
        torch.testing.assert_close(
            parameter, trained[name], rtol=0, atol={FULL: 0, "half": 1e-4, LOW_RANK: 0.01}[format]
        )
    assert loaded.sample_codes(Draws(0, 0, (0,))).shape == base.sample_codes(Draws(0, 0, (0,))).shape


def with_header(change):
    """A change of the header's table."""

    def tamper(pack):
        header = pack.header
        header = change(header) or header
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        pack.adapter = struct.pack("<Q", len(text)) + text + pack.data

    return tamper


def with_length(length):
    def tamper(pack):
        pack.adapter = struct.pack("<Q", length) + pack.adapter[8:]

    return tamper


def with_tensors(change):
    """A change of the tensors, written again by safetensors itself."""

    def tamper(pack):
        tensors = pack.tensors
        tensors = change(tensors) or tensors
        pack.adapter = save({name: tensor.contiguous() for name, tensor in tensors.items()})

    return tamper


def with_bytes(change):
    def tamper(pack):
        pack.adapter = change(pack.adapter)

    return tamper


def flipped(place):
    """One bit of the byte at a share of the file."""

    def change(content):
        at = int(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]

    return with_bytes(change)


def renamed(tensors, old, new):
    return {new if name == old else name: tensor for name, tensor in tensors.items()}


def set_number(key, value):
    def change(tensors):
        tensors[key].view(-1)[-1] = value

    return with_tensors(change)


def entry(key, **values):
    def change(header):
        header[key].update(values)

    return with_header(change)


def any_entry(**values):
    def change(header):
        next(e for name, e in header.items() if name != "__metadata__").update(values)

    return with_header(change)


def twice(header):
    text = json.dumps(header)
    first = json.dumps({"decoder.bias@scale": header["decoder.bias@scale"]})
    return (text[:-1] + ", " + first[1:]).encode()


def overlapping(header):
    """The second tensor begins where the first has not ended."""
    second = sorted((e for name, e in header.items() if name != "__metadata__"), key=lambda e: e["data_offsets"])[1]
    second["data_offsets"] = [place - 2 for place in second["data_offsets"]]


def moved(by):
    def change(header):
        for name, each in header.items():
            if name != "__metadata__":
                each["data_offsets"] = [max(0, place + by) for place in each["data_offsets"]]

    return with_header(change)


LEFT, RIGHT, SCALE = f"{FACTORS}@left", f"{FACTORS}@right", f"{FACTORS}@scale"
BIAS = "decoder.bias@difference"

# name: (change, what the refusal says when the checksum is new)
ADAPTERS = {
    "empty": (with_bytes(lambda c: b""), "header is longer than the file"),
    "cut within the length": (with_bytes(lambda c: c[:5]), "header is longer than the file"),
    "cut within the header": (with_bytes(lambda c: c[:100]), "header is longer than the file"),
    "cut within the numbers": (with_bytes(lambda c: c[:-4]), "its tensors take"),
    "cut at half": (with_bytes(lambda c: c[: len(c) // 2]), "its tensors take"),
    "one byte more": (with_bytes(lambda c: c + b"\0"), "its tensors take"),
    "many bytes more": (with_bytes(lambda c: c + bytes(100_000)), "its tensors take"),
    "a byte before it": (with_bytes(lambda c: b"\0" + c), "header is longer than the file"),
    "all zeros": (with_bytes(lambda c: bytes(len(c))), "it is no table"),
    "all ones": (with_bytes(lambda c: b"\xff" * len(c)), "header is longer than the file"),
    "a pickle": (with_bytes(lambda c: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00" + c), "longer than the file"),
    "what torch.save writes": (with_bytes(lambda c: saved_by_torch(load_bytes(c))), "longer than the file"),
    "a zip archive": (with_bytes(lambda c: b"PK\x03\x04" + c), "longer than the file"),
    "a web page": (with_bytes(lambda c: b"<!doctype html><title>Not found</title>"), "longer than the file"),
    "a pointer of Git LFS": (with_bytes(lambda c: b"version https://git-lfs.github.com/spec/v1\n"), "longer than the"),
    "a header of no length": (with_length(0), "it is no table"),
    "a header of 1 byte": (with_length(1), "cannot be read, Expecting"),
    "a header beyond the file": (with_length(10**9), "longer than the file"),
    "a header of -1 bytes": (with_length(2**64 - 1), "longer than the file"),
    "a header of 2^63 bytes": (with_length(2**63), "longer than the file"),
    "a huge header": (with_header(lambda h: json.dumps(h).encode() + b" " * (2 << 20)), "at most 1048576 are allowed"),
    "a deep header": (with_header(lambda h: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "a header that is a list": (with_header(lambda h: json.dumps([h]).encode()), "it is no table"),
    "a header that is no UTF-8": (with_header(lambda h: b'{"\xc3\x28":{}}'), "cannot be read, 'utf-8' codec"),
    "a header with NaN": (with_header(lambda h: json.dumps({**h, "x": float("nan")}).encode()), "NaN is no JSON"),
    "a key twice": (with_header(twice), "'decoder.bias@scale' stands in it twice"),
    "metadata of tables": (with_header(lambda h: {**h, "__metadata__": {"format": {}}}), "more than texts"),
    "an entry that is a number": (with_header(lambda h: {**h, BIAS: 3}), "not told of by dtype"),
    "an entry without a shape": (with_header(lambda h: h[BIAS].pop("shape") and None), "not told of by dtype"),
    "tensors that overlap": (with_header(overlapping), "overlaps the tensor before it"),
    "tensors with a hole": (moved(by=16), "leaves a hole before it"),
    "offsets out of range": (moved(by=2**40), "leaves a hole before it"),
    "offsets below 0": (any_entry(data_offsets=[-8, 0]), "must be two whole numbers from 0"),
    "offsets as text": (any_entry(data_offsets=["0", "8"]), "must be two whole numbers from 0"),
    "a shape of other size": (entry(BIAS, shape=[5]), "its shape and dtype need another number"),
    "a shape below 0": (entry(BIAS, shape=[-2, -2]), "whole numbers from 0"),
    "a shape that wraps round": (entry(BIAS, shape=[2**33, 2**33]), "its shape and dtype need another number"),
    "a shape of a hundred axes": (entry(BIAS, shape=[1] * 99 + [4]), "at most 8 whole numbers"),
    "a shape turned into rows": (entry(BIAS, shape=[4, 1]), r"decoder.bias@difference has shape \(4, 1\), not \(4,\)"),
    "a factor turned round": (with_tensors(lambda t: {**t, LEFT: t[LEFT].T}), "its layers.0.weight@left has shape"),
    "both factors exchanged": (
        with_tensors(lambda t: {**t, LEFT: t[RIGHT].T, RIGHT: t[LEFT].T}),
        r"weight@left has shape \(8, 1\)",
    ),
    "a factor with a row less": (with_tensors(lambda t: {**t, LEFT: t[LEFT][1:]}), "its layers.0.weight@left has"),
    "a factor of another rank": (
        with_tensors(lambda t: {**t, LEFT: t[LEFT].repeat(1, 2)}),
        r"its layers.0.weight@scale has shape \(1,\), not \(2,\)",
    ),
    "factors of far too high a rank": (
        with_tensors(lambda t: {**t, LEFT: t[LEFT].repeat(1, 50), RIGHT: t[RIGHT].repeat(50, 1)}),
        "more than its rank can be",
    ),
    "numbers as integers": (entry(BIAS, dtype="I16"), "has dtype 'I16', it must be one of"),
    "numbers as truths": (entry(BIAS, dtype="BOOL", shape=[8]), "has dtype 'BOOL'"),
    "numbers as bfloat16": (entry(BIAS, dtype="BF16"), "is of torch.bfloat16, not torch.float16"),
    "a dtype that nobody knows": (entry(BIAS, dtype="F17"), "has dtype 'F17'"),
    "a factor of float32": (
        with_tensors(lambda t: {**t, LEFT: t[LEFT].float()}),
        "of torch.float32, not torch.int8",
    ),
    "a NaN in a difference": (set_number(BIAS, float("nan")), "holds numbers that are not finite"),
    "a NaN in a factor's scale": (set_number(SCALE, float("nan")), "holds numbers that are not finite"),
    "an infinity in a difference": (set_number(BIAS, float("-inf")), "holds numbers that are not finite"),
    "an infinite scale": (set_number("decoder.bias@scale", float("inf")), "holds numbers that are not finite"),
    "a scale below 0": (set_number(SCALE, -1.0), "holds numbers below 0"),
    "a scale of 0": (set_number("decoder.bias@scale", 0.0), "must be a power of two"),
    "factors whose product overflows": (set_number(SCALE, 3e38), "makes numbers that are not finite"),
    "a tensor is missing": (
        with_tensors(lambda t: {k: v for k, v in t.items() if k[:12] != "decoder.bias"}),
        "lacks 'dec",
    ),
    "a scale is missing": (with_tensors(lambda t: t.pop(SCALE) is None or None), "holds left and right of layers.0"),
    "a factor is missing": (with_tensors(lambda t: t.pop(LEFT) is None or None), "holds right and scale of layers.0"),
    "no tensors": (with_tensors(lambda t: {"x@scale": torch.ones(())}), "this one has no 'x'"),
    "an empty table": (with_bytes(lambda c: save({})), "it lacks 'decoder.bias'"),
    "a tensor too many": (with_tensors(lambda t: {**t, "extra@difference": torch.ones(2)}), "this one has no 'extra'"),
    "a tensor that is not trained": (
        with_tensors(
            lambda t: {**t, "mapping.bias@difference": torch.ones(8).half(), "mapping.bias@scale": torch.ones(())}
        ),
        "this one has no 'mapping.bias'",
    ),
    "a tensor by another name": (
        with_tensors(lambda t: renamed(t, BIAS, "decoder.bios@difference")),
        "has no 'decoder.bios'",
    ),
    "a part by another name": (with_tensors(lambda t: renamed(t, LEFT, f"{FACTORS}@wrong")), "which is no part of"),
    "a part too many": (
        with_tensors(lambda t: {**t, f"{FACTORS}@difference": torch.ones(1)}),
        "holds difference and left",
    ),
    "a name with a path": (
        with_tensors(lambda t: renamed(t, BIAS, "../../decoder.bias@difference")),
        r"no '\.\./\.\./dec",
    ),
    "a name with a line break": (with_tensors(lambda t: renamed(t, BIAS, "a\nb\x1b[2J@difference")), r"has no 'a\\nb"),
    "a very long name": (with_tensors(lambda t: renamed(t, BIAS, "a" * 5000 + "@difference")), "has no 'aaaa"),
    "another backbone's": (
        lambda p: vars(p).update(adapter=Pack(renderer=of_another_size()).adapter),
        r"its layers.0.weight@left has shape \(768, 1\)",
    ),
    "another training group's": (
        with_tensors(lambda t: {k: v for k, v in t.items() if "layers.2" not in k}),
        "lacks 'layers.2",
    ),
    "another format": (lambda p: vars(p).update(adapter=Pack(FULL).adapter), "which is no part of a difference"),
}
# What nobody can tell but by the checksum: who writes a new one has made another pack.
FLIPPED = {f"a bit flipped at {place}": flipped(place) for place in (0.3, 0.5, 0.9, 0.99, 1.0)}


OTHER_SIZE, OTHER_SUM = r"bytes, and its config\.json says \d+", "its sha256 is another"


def saved_by_torch(tensors):
    """What nobody may open: an archive with a pickle in it."""
    content = io.BytesIO()
    torch.save(tensors, content)
    return content.getvalue()


def of_another_size():
    torch.manual_seed(0)
    return toy(width=6, channels=4, dtype=torch.float32)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_changed_adapter_with_a_new_checksum_is_refused(tmp_path, name):
    pack = Pack()
    tamper, message = ADAPTERS[name]
    tamper(pack)
    pack.seal()
    said = refusal(pack.write(tmp_path / "pack"))
    assert re.search(message, said), said


@pytest.mark.parametrize("name", [*ADAPTERS, *FLIPPED])
def test_a_changed_adapter_with_the_old_checksum_is_refused(tmp_path, name):
    pack = Pack()
    before = pack.adapter
    (FLIPPED.get(name) or ADAPTERS[name][0])(pack)
    assert pack.adapter != before
    said = refusal(pack.write(tmp_path / "pack"))
    if len(pack.adapter) != len(before):
        assert re.search(OTHER_SIZE, said), said
    elif name in FLIPPED:
        assert OTHER_SUM in said
    else:  # the header is looked at before the numbers are read
        assert re.search(f"{ADAPTERS[name][1]}|{OTHER_SUM}", said), said


def config(**values):
    return lambda pack: pack.config.update(values)


def inner(table, **values):
    return lambda pack: pack.config[table].update(values)


def without(name, table=None):
    return lambda pack: (pack.config if table is None else pack.config[table]).pop(name)


def raw(change):
    def tamper(pack):
        pack.raw_config = change(json.dumps(pack.config).encode())

    return tamper


CONFIGS = {
    "empty": (raw(lambda c: b""), "is no JSON"),
    "cut": (raw(lambda c: c[: len(c) // 2]), "is no JSON"),
    "no JSON": (raw(lambda c: b"style: zombie\n"), "is no JSON"),
    "a byte flipped": (raw(lambda c: c.replace(b"{", b"\x7f", 1)), "is no JSON"),
    "no UTF-8": (raw(lambda c: b"\xff\xfe" + c), "is no JSON"),
    "deep": (raw(lambda c: b"[" * 200_000), "is no JSON"),
    "a number of 5000 digits": (raw(lambda c: c.replace(b'"step": 2', b'"step": ' + b"9" * 5000)), "is no JSON"),
    "a list": (raw(lambda c: b"[" + c + b"]"), "not written by `distill3d push`"),
    "a number": (raw(lambda c: b"7"), "not written by `distill3d push`"),
    "a text": (raw(lambda c: b'"schema adapter"'), "not written by `distill3d push`"),
    "somebody else's model": (
        raw(lambda c: b'{"model_type": "bert", "hidden_size": 768}'),
        "not written by `distill3d push`",
    ),
    "larger than a mebibyte": (
        raw(lambda c: c + b" " * (1 << 20)),
        r"its config.json has [\d,]+ bytes, a style pack's has at most 1,048,576",
    ),
    "no schema": (without("schema"), "not written by `distill3d push`"),
    "a newer schema": (config(schema=SCHEMA + 1), "Update distill3d"),
    "a schema of long ago": (config(schema=0), "versions are 1, 2"),
    "a schema below 0": (config(schema=-1), "versions are 1, 2"),
    "a schema as text": (config(schema="1"), "has version '1'"),
    "a schema that is true": (config(schema=True), "has version True"),
    "a broken schema": (config(schema=1.0), "has version 1.0"),
    "a schema of nothing": (config(schema=None), "has version None"),
    "a style that is a number": (config(style=7), "style must be text, it is 7"),
    "a style of a million letters": (config(style="a" * 900_000), "style must be text, it is 'aaaaaaaaaaaa...a"),
    "no prompt": (without("prompt"), "prompt must be text"),
    "a negative prompt of nothing": (config(negative_prompt=None), "negative_prompt must be text"),
    "a backbone that is a list": (config(backbone=["toy"]), "backbone must be text"),
    "a backbone that nobody has": (config(backbone="nobody's"), 'the backbone "nobody\'s", which is not installed'),
    "a backbone that is a module": (config(backbone="os:system"), "the backbone 'os:system', which is not installed"),
    "a backbone that is a path": (config(backbone="../../toy"), "the backbone '../../toy', which is not installed"),
    "a training group that there is not": (config(train="secret"), "No training group is called 'secret'"),
    "a training group of numbers": (config(train=3), "train must be text"),
    "options as a list": (config(backbone_options=[]), "backbone_options must be a table"),
    "an option that there is not": (config(backbone_options={"secret": 1}), "has no setting called 'secret'"),
    "settings as text": (config(settings="all"), "settings must be a table"),
    "a step below 0": (config(step=-1), "step must be a whole number"),
    "a step that is true": (config(step=True), "step must be a whole number"),
    "a step as text": (config(step="2"), "step must be a whole number"),
    "a step beyond all": (config(step=10**400), "step must be a whole number"),
    "parts as a table": (config(parts={}), "parts must be a list of tables"),
    "a part that is text": (config(parts=["SD 1.5"]), "parts must be a list of tables"),
    "a part without a licence": (config(parts=[{"role": "scorer", "name": "x"}]), r"parts\[0\].licence must be text"),
    "metrics as a number": (config(metrics=0.9), "metrics must be a table"),
    "a metric as text": (config(metrics={"protocol": "p", "values": {"a": "good"}}), "a must be a finite number"),
    "a metric that is no number": (
        config(metrics={"protocol": "p", "values": {"a": float("nan")}}),
        "finite number, it is nan",
    ),
    "no base": (without("base"), "base must be a table"),
    "a base as text": (config(base="EG3D"), "base must be a table"),
    "a base without a checksum": (without("sha256", "base"), "base.sha256 must be a sha256"),
    "a base with a short checksum": (inner("base", sha256="abc"), "base.sha256 must be a sha256"),
    "a base with large letters": (inner("base", sha256="A" * 64), "base.sha256 must be a sha256"),
    "another base": (inner("base", sha256="0" * 64), "belongs to weights of backbone 'toy'"),
    "no adapter": (without("adapter"), "not written by `distill3d push`"),
    "an adapter as text": (config(adapter="adapter.safetensors"), "adapter must be a table"),
    "an adapter without a checksum": (without("sha256", "adapter"), "adapter.sha256 must be a sha256"),
    "another adapter's checksum": (inner("adapter", sha256="0" * 64), "its sha256 is another"),
    "a checksum with a line break": (
        lambda p: p.config["adapter"].update(sha256=p.config["adapter"]["sha256"] + "\n"),
        "adapter.sha256 must be a sha256",
    ),
    "a size that is larger": (lambda p: p.config["adapter"].update(size=len(p.adapter) + 1), OTHER_SIZE),
    "a size that is smaller": (lambda p: p.config["adapter"].update(size=len(p.adapter) - 1), OTHER_SIZE),
    "a size of 0": (inner("adapter", size=0), "and its config.json says 0;"),
    "a size below 0": (inner("adapter", size=-1), "adapter.size must be a whole number"),
    "a size of a petabyte": (inner("adapter", size=10**15), "packs have at most"),
    "a size beyond all": (inner("adapter", size=10**300), "adapter.size must be a whole number"),
    "a broken size": (inner("adapter", size=12.5), "adapter.size must be a whole number"),
    "a size as text": (inner("adapter", size="12"), "adapter.size must be a whole number"),
    "a format that there is not": (inner("adapter", format="pickle"), "adapter.format must be one of full, half, low-"),
    "a format of numbers": (inner("adapter", format=1), "adapter.format must be text"),
    "another format": (inner("adapter", format="half"), "do not make a difference of format 'half'"),
    "the format of the tensors themselves": (inner("adapter", format="full"), "this one has no 'decoder.bias@dif"),
    "an error that is no number": (inner("adapter", weights_error=float("nan")), "weights_error must be a finite"),
    "an error beyond all": (inner("adapter", weights_error=10**400), "weights_error must be a finite"),
    "a style that clears the screen": (config(style="\x1b[2Jzombie"), "style must be text"),
    "a prompt that is no Unicode": (config(prompt="\ud800"), "prompt must be text"),
    "a base with a line break": (
        inner("base", weights="x\nImportError: y", sha256="0" * 64),
        "base.weights must be text",
    ),
    "a metric with a line break": (
        config(metrics={"protocol": "", "values": {"a\nb": "good"}}),
        r"'a\\nb' must be a finite",
    ),
    "an error as text": (inner("adapter", pictures_error="small"), "pictures_error must be a finite"),
    "an option that is a path up": (
        config(backbone_options={"subjects": ["../../x"]}),
        "disk as the backbone's subjects, ",
    ),
    "an option that is an absolute path": (
        config(backbone_options={"latents": "/etc/passwd"}),
        "disk as the backbone's latents, ",
    ),
    "an option that is a path on Windows": (
        config(backbone_options={"latents": "C:\\x"}),
        "disk as the backbone's latents, ",
    ),
    "an option that is a share": (
        config(backbone_options={"latents": "\\\\host\\x"}),
        "disk as the backbone's latents, ",
    ),
    "an option that is a home": (config(backbone_options={"latents": "~/x"}), "disk as the backbone's latents, "),
    "an option deep inside that is a path": (
        config(backbone_options={"a": {"b": [["x/../../y"]]}}),
        "disk as the backbone's a, ",
    ),
    "an option that is an address of a file": (config(backbone_options={"a": "FILE:///x"}), "disk as the backbone's a"),
    "an option that is a file on a drive": (config(backbone_options={"a": "c:x"}), "disk as the backbone's a"),
    "a base that is a path up": (inner("base", weights="../../weights.pkl"), "disk as its base, '../../weights.pkl'"),
    "a base that is an absolute path": (
        inner("base", weights="/somewhere/weights.pkl"),
        "disk as its base, '/somewhere/weights.pkl'",
    ),
    "a base that is a path from here": (inner("base", weights="./weights.pkl"), "disk as its base, './weights.pkl'"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_changed_config_is_refused(tmp_path, name):
    pack = Pack()
    tamper, message = CONFIGS[name]
    tamper(pack)
    said = refusal(pack.write(tmp_path / "zombie-pack"))
    assert re.search(message, said), said
    assert "zombie-pack" in said


def in_place_of(name, make):
    """Take a file of the pack away and call `make` with its place."""

    def tamper(folder):
        (folder / name).unlink()
        make(folder / name)

    return tamper


OUT = "is a link that leads out of its folder"

FOLDERS = {
    "no adapter": (in_place_of(ADAPTER, lambda path: None), "it has no adapter"),
    "no config": (in_place_of(CONFIG, lambda path: None), "it has no config"),
    "a folder for the adapter": (in_place_of(ADAPTER, lambda path: path.mkdir()), "adapter.safetensors is no file"),
    "a folder for the config": (in_place_of(CONFIG, lambda path: path.mkdir()), "config.json is no file"),
    "an adapter that leads nowhere": (in_place_of(ADAPTER, lambda path: path.symlink_to("nothing")), "No such file"),
    "a config that leads nowhere": (in_place_of(CONFIG, lambda path: path.symlink_to("nothing")), "No such file"),
    "an adapter that leads to itself": (in_place_of(ADAPTER, lambda path: path.symlink_to(path)), "Too many levels"),
    "an adapter that leads to a device": (in_place_of(ADAPTER, lambda path: path.symlink_to("/dev/zero")), OUT),
    "a config that leads to a device": (in_place_of(CONFIG, lambda path: path.symlink_to("/dev/zero")), OUT),
    "an adapter that is a pipe": (in_place_of(ADAPTER, lambda path: os.mkfifo(path)), "adapter.safetensors is no file"),
    "a config that is a pipe": (in_place_of(CONFIG, lambda path: os.mkfifo(path)), "config.json is no file"),
    "an adapter that leads to another file": (in_place_of(ADAPTER, lambda path: path.symlink_to(__file__)), OUT),
    "a config that leads to another file": (in_place_of(CONFIG, lambda path: path.symlink_to(__file__)), OUT),
    "an adapter that is the config": (
        in_place_of(ADAPTER, lambda path: path.symlink_to(CONFIG)),
        r"has \d+ bytes, and its config.json says",
    ),
    "a config that is the adapter": (in_place_of(CONFIG, lambda path: path.symlink_to(ADAPTER)), "is no JSON"),
}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are made as POSIX has them")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_other_things_is_refused(tmp_path, name):
    folder = Pack().write(tmp_path / "zombie-pack")
    change, message = FOLDERS[name]
    change(folder)
    said = refusal(folder)
    assert re.search(message, said) and "zombie-pack" in said, said


def test_an_option_that_names_what_lies_here_is_refused(tmp_path, monkeypatch):
    """A plain word is no path, but a file of that name would be read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").mkdir()
    pack = Pack()
    pack.config |= {"backbone": "photo-toy", "backbone_options": {"subjects": ["private"]}}
    said = refusal(pack.write(tmp_path / "zombie-pack"))
    assert "here lies a file called 'private': run it from another folder." in said


LURES = ("torch.py", "handler.py", "__init__.py", "modeling.py", "conftest.py", "sitecustomize.py", "distill3d_toy.py")
SPY = """
import os, sys
from tests.photo_runs import photo_toy_is_installed
from distill3d.models import load

here, opened, wrong = os.getcwd() + os.sep, set(), set()

def spy(event, given):
    if event == "open" and isinstance(given[0], str) and os.path.abspath(given[0]).startswith(here):
        opened.add(os.path.relpath(given[0]))
    elif event == "exec" and os.path.isfile(given[0].co_filename):  # else what Python makes up, as <string>
        if os.path.abspath(given[0].co_filename).startswith(here):
            wrong.add("ran " + os.path.relpath(given[0].co_filename))
    elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class"):
        wrong.add(event)

def told():
    found = [sorted(opened), sorted(wrong)]
    opened.clear(), wrong.clear()
    return found

with photo_toy_is_installed():
    sys.addaudithook(spy)
    load(".")
    print(told())
    exec(compile(open("handler.py").read(), "handler.py", "exec"))
    import pickle
    try:
        pickle.load(open("pytorch_model.bin", "rb"))
    except SystemExit:
        print(told())
"""


def test_no_code_of_a_pack_runs(tmp_path):
    """Files beside the pack's own are not looked at, whatever they are called, also where a user stands among them.

    The spy sees what it is there for: afterwards it is shown what a careless loader would do.
    """
    folder = Pack().write(tmp_path / "pack")
    for name in LURES:
        (folder / name).write_text("ran = True\n")
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nexit\n(S'it ran'\ntR.")
    (tmp_path / "spy.py").write_text(SPY)
    done = subprocess.run(
        [sys.executable, tmp_path / "spy.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        str([[ADAPTER, CONFIG], []]),
        str([["handler.py", "pytorch_model.bin"], ["pickle.find_class", "ran handler.py"]]),
    ], done.stderr
