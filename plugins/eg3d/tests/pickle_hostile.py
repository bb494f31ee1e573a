"""Pickles that are made to harm: some execute code when they are unpickled, others exhaust memory, time or the stack.

Each is a function of the path of a canary. `EXECUTING` ones create it when `pickle.load` loads them, which the tests
check, as otherwise a corpus could be harmless by mistake.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pickle_writer import Call, Name, New, dumped, generator, persistent, snapshot

Sample = Callable[[str], bytes]
EXECUTING: dict[str, Sample] = {}
EXHAUSTING: dict[str, Sample] = {}
SYSTEM = Name("posix", "system")
GADGET = Name("gadgets", "Gadget")  # a class of the child whose every method touches a path
EXTENSION = 241  # registered in the child for posix.system
MANY = 80_000  # nesting that would end a process whose code recurses


def executing(make: Callable[[str], Any]) -> Callable[[str], Any]:
    EXECUTING[make.__name__] = lambda canary: _bytes(make(canary))
    return make


def exhausting(make: Callable[[], Any]) -> Callable[[], Any]:
    EXHAUSTING[make.__name__] = lambda canary: _bytes(make())
    return make


def _bytes(made: Any) -> bytes:
    """A snapshot in which something hostile comes first."""
    return made if isinstance(made, bytes) else dumped(snapshot(training_set_kwargs=made))


def touch(canary: str) -> str:
    return f"touch {canary}"


def source(canary: str) -> str:
    return f"open({canary!r}, 'w').close()"


def short(text: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(text)]) + text.encode()


def legacy(*parts: bytes) -> Call:
    """`_load_from_bytes` of these bytes."""
    return Call(Name("torch.storage", "_load_from_bytes"), (b"".join(parts),))


def saved_storage(numel: int = 6) -> bytes:
    file = io.BytesIO()
    torch.save(torch.zeros(numel)._typed_storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def tensor(memory: Any, shape: Any = (1,), stride: Any = (1,), offset: Any = 0) -> Call:
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (memory, offset, shape, stride, False, None))


def altered(**changes: Any) -> bytes:
    """A snapshot whose generator has other attributes."""
    return dumped(snapshot(persistent("TriPlaneGenerator", {**generator().__dict__, **changes})))


def in_a_weight(*parts: bytes) -> bytes:
    """A snapshot of `G_ema` alone, with a weight whose storage is these bytes."""
    state = {**generator().__dict__, "_parameters": {"a": tensor(legacy(*parts))}}
    return dumped({"G_ema": persistent("TriPlaneGenerator", state)})


# --- code execution -------------------------------------------------------------------------------------------------


@executing
def os_system(canary):
    return Call(SYSTEM, (touch(canary),))


@executing
def os_system_in_the_discriminator(canary):
    return dumped(snapshot(D=Call(SYSTEM, (touch(canary),)), G=None, G_ema={}))


@executing
def builtins_eval(canary):
    return Call(Name("builtins", "eval"), (source(canary),))


@executing
def builtins_exec(canary):
    return Call(Name("builtins", "exec"), (source(canary),))


@executing
def eval_as_python_2_spells_it(canary):
    text = source(canary).encode()
    return b"\x80\x02c__builtin__\neval\n(X" + struct.pack("<I", len(text)) + text + b"tR."


@executing
def subprocess_popen(canary):
    return Call(Name("subprocess", "Popen"), (["touch", canary],))


@executing
def subprocess_call(canary):
    return Call(Name("subprocess", "check_call"), (["touch", canary],))


@executing
def nested_reduce(canary):
    module = Call(Name("importlib", "import_module"), ("os",))
    return Call(Call(Name("builtins", "getattr"), (module, "system")), (touch(canary),))


@executing
def call_of_an_instance_of_partial(canary):
    return Call(Call(Name("functools", "partial"), (SYSTEM, touch(canary))))


@executing
def list_of_map(canary):
    return Call(Name("builtins", "list"), (Call(Name("builtins", "map"), (SYSTEM, [touch(canary)])),))


@executing
def open_for_writing(canary):
    return Call(Name("builtins", "open"), (canary, "w"))


@executing
def run_a_string_through_timeit(canary):
    return Call(Name("timeit", "timeit"), (source(canary), "pass", Name("time", "time"), 1))


@executing
def ordered_dict_of_a_call(canary):
    return New(Name("collections", "OrderedDict"), items={"a": Call(SYSTEM, (touch(canary),))})


@executing
def pickle_in_a_pickle(canary):
    return Call(Name("pickle", "loads"), (dumped(Call(SYSTEM, (touch(canary),))),))


@executing
def torch_load_of_a_pickle(canary):
    """A legacy load begins by unpickling the magic number."""
    return in_a_weight(dumped(Call(SYSTEM, (touch(canary),)), protocol=2))


@executing
def legacy_blob_whose_platform_is_a_call(canary):
    hostile = dumped(Call(SYSTEM, (touch(canary),)), protocol=2)
    return in_a_weight(pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), hostile)


@executing
def legacy_blob_whose_storage_is_a_call_in_a_weight(canary):
    hostile = dumped(Call(SYSTEM, (touch(canary),)), protocol=2)
    blob = saved_storage()
    start = blob.index(b"\x80\x02(X\x07\x00\x00\x00storage")
    return in_a_weight(blob[:start], hostile, blob[start:])


@executing
def numpy_scalar_of_objects(canary):
    kind = Call(Name("numpy", "dtype"), ("O8", False, True))
    return Call(Name("pickle", "loads"), (dumped([kind, Call(SYSTEM, (touch(canary),))]),))


@executing
def rebuild_from_type(canary):
    arguments = (SYSTEM, Name("torch", "Tensor"), (touch(canary),), {})
    return Call(Name("torch._tensor", "_rebuild_from_type_v2"), arguments)


@executing
def source_of_a_module(canary):
    return dumped({"G_ema": persistent("A", {"_modules": {}}, source(canary))})


@executing
def extension_code(canary):
    return b"\x80\x04\x82" + bytes([EXTENSION]) + short(touch(canary)) + b"\x85R."


@executing
def python_2_instance(canary):
    return b"\x80\x02(" + b"X" + struct.pack("<I", len(touch(canary))) + touch(canary).encode() + b"iposix\nsystem\n."


@executing
def python_2_object(canary):
    text = b"X" + struct.pack("<I", len(touch(canary))) + touch(canary).encode()
    return b"\x80\x02(cposix\nsystem\n" + text + b"o."


@executing
def names_out_of_the_memo(canary):
    names = short("system") + b"\x94" + short("posix") + b"\x940h\x01h\x00\x93"
    return b"\x80\x04" + names.replace(b"0h\x01", b"00h\x01") + short(touch(canary)) + b"\x85R."


@executing
def dotted_names_through_an_innocent_module(canary):
    return Call(Name("subprocess", "os.system"), (touch(canary),))


@executing
def setstate_of_a_class(canary):
    return New(GADGET, state=canary)


@executing
def new_of_a_class(canary):
    return b"\x80\x04" + short("gadgets") + short("Gadget") + b"\x93" + short(canary) + b"\x85\x81."


@executing
def new_with_keywords(canary):
    keywords = b"}" + short("path") + short(canary) + b"s"
    return b"\x80\x04" + short("gadgets") + short("Gadget") + b"\x93)" + keywords + b"\x92."


@executing
def items_of_a_class(canary):
    return New(GADGET, items={canary: 1})


@executing
def list_items_of_a_class(canary):
    return b"\x80\x04" + short("gadgets") + short("Gadget") + b"\x93)\x81(" + short(canary) + b"e."


@executing
def set_items_of_a_class(canary):
    return b"\x80\x04" + short("gadgets") + short("Gadget") + b"\x93)\x81(" + short(canary) + b"\x90."


@executing
def hash_of_a_class(canary):
    state = b"}" + short("canary") + short(canary) + b"s"
    made = short("gadgets") + short("Hashed") + b"\x93)\x81" + state + b"b"
    return b"\x80\x04}" + made + b"K\x01s."


@executing
def slots_that_patch_a_function(canary):
    """BUILD of a class sets attributes on the class itself; here its __setstate__ becomes os.system."""
    patch = b"N}" + short("__setstate__") + short("posix") + short("system") + b"\x93s\x86b0"
    victim = short("gadgets") + short("Plain") + b"\x93"
    return b"\x80\x04" + victim + patch + victim + b")\x81" + short(touch(canary)) + b"b."


@executing
def reconstructor_with_a_state(canary):
    return Call(Name("copyreg", "__newobj__"), (GADGET, canary))


# --- exhaustion -----------------------------------------------------------------------------------------------------

HUGE = {
    "bytes of 2**60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc",
    "bytes of 2**63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"abc",
    "bytes of 4 GiB": b"\x80\x03B\xff\xff\xff\xffabc",
    "text of 2**62": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc",
    "bytearray of 2**60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"abc",
    "bytearray of 32 MiB": b"\x80\x05\x96" + struct.pack("<Q", 2**25) + bytes(2**25) + b".",
    "number of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7fabc",
    "number of 1 MiB": b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b".",
    "number of many digits": b"\x80\x02L" + b"9" * 4_000_000 + b"L\n.",
    "number of 4,000 digits": b"\x80\x02I" + b"9" * 4_000 + b"\n.",
    "negative length": b"\x80\x02\x8b\xff\xff\xff\xffabc",
    "frame of 2**64": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "memo index 2**32": b"\x80\x02Nr\xff\xff\xff\xff.",
    "memo index of 18 digits": b"\x80\x02Np999999999999999999\n.",
    "negative memo index": b"\x80\x02Np-1\n.",
    "unknown memo index": b"\x80\x02j\xff\xff\xff\x7f.",
    "memo index no number": b"\x80\x02Npx\n.",
    "names of a mebibyte": b"\x80\x02c" + b"a" * 2**20 + b"\n" + b"b" * 2**20 + b"\n.",
    "a name without an end": b"\x80\x02c" + b"a" * 2**20,
    "names that are escapes": b"\x80\x02c\\x1b[2J\n\\x00\n)R.",
    "names that are half characters": b"\x80\x04\x8c\x03\xed\xa0\x80\x8c\x01b\x93)R.",
    "names that are bytes": b"\x80\x04C\x02osC\x06system\x93)R.",
    "names that are numbers": b"\x80\x04K\x01K\x02\x93.",
    "no module": b"\x80\x02c\n\n.",
    "text that is no UTF-8": b"\x80\x04\x8c\x02\xff\xff.",
    "wide text": b"\x80\x04X" + struct.pack("<I", 2**23) + "\U0001f600".encode() * 2**21 + b".",
    "many wide texts": b"\x80\x04" + (b"X\x00\x10\x00\x00" + "\U0001f600".encode() * 1024 + b"0") * 8_000 + b"N.",
    "deep lists": b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * MANY + b".",
    "deep dicts": b"\x80\x02" + b"}K\x01" * 40_000 + b"N" + b"s" * 40_000 + b".",
    "deep records": b"\x80\x02" + b"ca\nb\n)\x81" * 20_000 + b"N" + b"b" * 20_000 + b".",
    "deep arguments": b"\x80\x02)" + b"0ca\nb\nq\x00)\x81" * 9 + b"\x85" * MANY + b"h\x00)\x81b.",
    "deep tuple as key": b"\x80\x02})" + b"\x85" * MANY + b"Ns.",
    "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * MANY + b"\x90.",
    "deep frozenset": b"\x80\x04(" + b"(" * 1_000 + b"\x91" * 1_000 + b".",
    "list as key": b"\x80\x02}]Ns.",
    "dict as key": b"\x80\x02}}Ns.",
    "set as key": b"\x80\x04}\x8fNs.",
    "record as key": b"\x80\x02}ca\nb\n)\x81Ns.",
    "list in a set": b"\x80\x04\x8f(]\x90.",
    "list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "tuple that holds itself": b"\x80\x02]q\x00h\x00\x85a0h\x00\x85.",
    "dict without a value": b"\x80\x02(K\x01d.",
    "marks": b"\x80\x02" + b"(" * MANY + b".",
    "pops of nothing": b"\x80\x02000.",
    "mark of nothing": b"\x80\x02t.",
    "memo of nothing": b"\x80\x02q\x00.",
    "duplicate of nothing": b"\x80\x022.",
    "duplicate of a mark": b"\x80\x02(2.",
    "many values": b"\x80\x02" + b"}" * 2_000_000 + b".",
    "many sets in a list": b"\x80\x04](" + (b"\x8f" * 90_000 + b"e(") * 2 + b"e.",
    "many opcodes": b"\x80\x02" + b"N0" * 1_000_000 + b"N.",
    "call of a number": b"\x80\x02K\x01)R.",
    "call of a list": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "object of a number": b"\x80\x02K\x01)\x81.",
    "state of a number": b"\x80\x02K\x01}b.",
    "state twice": b"\x80\x02ca\nb\n)\x81}b}b.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "item of a list": b"\x80\x02]K\x01K\x02s.",
    "add to a list": b"\x80\x04](K\x01\x90.",
    "persistent id of a line": b"\x80\x02Pevil\n.",
    "persistent id": b"\x80\x02X\x04\x00\x00\x00evilQ.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05N\x98.",
    "extension 4": b"\x80\x02\x84\xff\xff\xff\xff.",
}
EXHAUSTING.update({name: partial(lambda content, canary: content, content) for name, content in HUGE.items()})


def doubling(empty: bytes, twice: bytes, levels: int = 60) -> bytes:
    """A value that holds the same value twice, `levels` deep: 2**levels leaves in a few hundred bytes."""
    return empty + b"".join(twice for _ in range(levels))


def with_options(written: bytes) -> bytes:
    """A snapshot whose options are what these opcodes make."""
    marker = "the options go here"
    content = altered(_init_kwargs={"a": marker})
    text = b"\x8c" + bytes([len(marker)]) + marker.encode()
    assert content.count(text) == 1
    start = content.index(b"\x95")  # frames would no longer fit
    return (content[:start] + content[start + 9 :]).replace(text, written)


@exhausting
def options_that_double_as_tuples():
    return with_options(doubling(b"K\x01", b"2\x86"))


@exhausting
def options_that_double_as_lists():
    return with_options(b"](K\x01K\x01e" + b"r\xff\x00\x01\x00](j\xff\x00\x01\x00j\xff\x00\x01\x00e" * 60)


@exhausting
def options_that_are_deep():
    return with_options(b")" + b"\x85" * 50_000)


@exhausting
def options_that_hold_themselves():
    return with_options(b"]r\xff\x00\x01\x00j\xff\x00\x01\x00a")


@exhausting
def options_with_a_huge_number():
    return altered(_init_kwargs={"a": 2**20_000})


@exhausting
def resolution_that_is_a_huge_number():
    return altered(neural_rendering_resolution=2**20_000)


@exhausting
def modules_that_hold_themselves():
    child = New(Name("a", "B"), state={"_parameters": {}, "_buffers": {}, "_modules": {}})
    child.state["_modules"]["again"] = child
    return altered(_modules={**generator()._modules, "child": child})


@exhausting
def modules_that_double():
    child: Any = None
    for _ in range(28):
        children = {"a": child, "b": child} if child else {}
        child = New(Name("a", "B"), state={"_parameters": {}, "_buffers": {}, "_modules": children})
    return altered(_modules={**generator()._modules, "child": child})


@exhausting
def sets_copied_again_and_again():
    items = b"(" + b"".join(b"M" + struct.pack("<H", number) for number in range(20_000)) + b"l"
    return b"\x80\x02" + items + b"q\x000" + b"c__builtin__\nset\nq\x010]" + b"h\x01h\x00\x85Ra" * 50_000 + b"."


@exhausting
def dicts_copied_again_and_again():
    pairs = b"(" + b"".join(b"M" + struct.pack("<H", number) + b"N\x86" for number in range(20_000)) + b"l"
    return b"\x80\x02" + pairs + b"q\x000" + b"ccollections\nOrderedDict\nq\x010]" + b"h\x01h\x00\x85Ra" * 50_000 + b"."


@exhausting
def text_encoded_again_and_again():
    text = b"X\x00\x10\x00\x00" + b"a" * 4096
    call = b"h\x01h\x00X\x06\x00\x00\x00latin1\x86Ra"
    return b"\x80\x02" + text + b"q\x000c_codecs\nencode\nq\x010]" + call * 20_000 + b"."


@exhausting
def keys_that_collide():
    """Multiples of the modulus of Python's hash of integers all have the hash 0."""
    modulus = 2**61 - 1
    return b"\x80\x02}(" + b"".join(pickle.dumps(modulus * k, 2)[2:-1] + b"N" for k in range(1, 45_000)) + b"u."


@exhausting
def one_storage_in_many_weights():
    shared = legacy(saved_storage(250_000))
    return altered(_parameters={f"w{index}": tensor(shared, (250_000,)) for index in range(3_000)})


@exhausting
def one_storage_written_as_text_in_many_weights():
    blob = saved_storage(250_000).decode("latin-1")
    shared = Call(Name("torch.storage", "_load_from_bytes"), (Call(Name("_codecs", "encode"), (blob, "latin1")),))
    return altered(_parameters={f"w{index}": tensor(shared, (1,)) for index in range(3_000)})


STRANGE_TENSORS = {
    "expanded to a terabyte": ((2**38,), (0,), 0),
    "expanded in every dimension": ((2**20, 2**20, 2**20), (0, 0, 0), 0),
    "sizes that overflow": ((2**61, 2**61), (1, 1), 0),
    "size beyond 64 bits": ((2**100,), (1,), 0),
    "negative size": ((-1,), (1,), 0),
    "negative offset": ((1,), (1,), -1),
    "huge offset": ((1,), (1,), 2**61),
    "huge strides": ((2, 2), (2**61, 2**61), 0),
    "empty and huge": ((0, 2**61), (1, 1), 0),
    "empty with sizes that overflow": ((0, 2**31, 2**31, 2**31), (1, 1, 1, 1), 0),
    "true as a size": ((True,), (1,), 0),
    "float as a size": ((1.0,), (1,), 0),
    "a list as sizes": ([1], [1], 0),
    "ten thousand dimensions": ((1,) * 10_000, (1,) * 10_000, 0),
}
STRANGE_BLOBS = {
    "a pickle of None": dumped(None, 2) * 5,
    "two persistent ids": b"\x80\x02]Q." * 5,
    "a deep persistent id": b"\x80\x02)" + b"\x85" * 900 + b"Q.",
    "a bomb": b"\x80\x02" + b"}" * 100_000,
    "elements of 2**60": saved_storage(27).replace(b"K\x1bNt", b"\x8a\x08" + b"\xff" * 7 + b"\x0fNt"),
    "negative elements": saved_storage(27).replace(b"K\x1bNt", b"J\xff\xff\xff\xffNt"),
    "true elements": saved_storage(27).replace(b"K\x1bNt", b"\x88Nt"),
    "a type that is text": saved_storage(27).replace(b"ctorch\nFloatStorage\n", b"X\x01\x00\x00\x00a"),
    "no type of storage": saved_storage(27).replace(b"torch\nFloatStorage", b"posix\nsystem\n"[:-1]),
}
for _name, (_shape, _stride, _offset) in STRANGE_TENSORS.items():
    EXHAUSTING[_name] = lambda canary, shape=_shape, stride=_stride, offset=_offset: altered(
        _parameters={"a": tensor(legacy(saved_storage()), shape, stride, offset)}
    )
for _name, _blob in STRANGE_BLOBS.items():
    EXHAUSTING[f"storage of {_name}"] = lambda canary, blob=_blob: altered(_parameters={"a": tensor(legacy(blob))})
