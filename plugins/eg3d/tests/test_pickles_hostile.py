"""Hostile and mutated pickles: nothing is executed, and every one ends in our error or in a valid result.

They are read in a child process with 512 MiB of memory to spare, under an audit hook that sees every import, call of
the system, open file, exec and compile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pickle_hostile import EXECUTING, EXHAUSTING
from pickle_writer import OLD_SPELLINGS, dumped, generator, snapshot

HERE = Path(__file__).parent
VALID = "0 valid"  # sorts first


def child(*arguments):
    """What the child process reports."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "pickle_child.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]  # a crash of the interpreter, too, would show here
    return json.loads(done.stdout)


def write_corpus(folder, canaries, samples):
    canaries.mkdir()
    for name, make in samples.items():
        (folder / f"{name}.pkl").write_bytes(make(str(canaries / name)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The child's report on all hostile samples, and the canaries that were touched."""
    folder = tmp_path_factory.mktemp("hostile")
    canaries = folder / "canaries"
    write_corpus(folder, canaries, EXECUTING | EXHAUSTING)
    (folder / f"{VALID}.pkl").write_bytes(dumped(snapshot()))
    report = child("read", folder)
    return report, sorted(path.name for path in canaries.iterdir())


def test_the_samples_that_are_to_execute_do_when_they_are_unpickled(tmp_path):
    """So the corpus is hostile indeed."""
    canaries = tmp_path / "canaries"
    write_corpus(tmp_path, canaries, EXECUTING)
    errors = child("load", tmp_path)
    touched = {path.name for path in canaries.iterdir()}
    assert touched == set(EXECUTING), {name: errors.get(name) for name in set(EXECUTING) - touched}
    assert len(EXECUTING) >= 24


def test_nothing_hostile_is_executed(hostile):
    report, touched = hostile
    assert touched == []
    assert {name: found["events"] for name, found in report["outcomes"].items() if found["events"]} == {}
    assert len(report["outcomes"]) == len(EXECUTING) + len(EXHAUSTING) + 1


def test_every_hostile_file_ends_in_a_foreseen_error(hostile):
    """But for those whose source or state is simply not looked at, and the valid one."""
    outcomes = hostile[0]["outcomes"]
    read = {name for name, found in outcomes.items() if found["ended"] == "ok"}
    others = {name: found for name, found in outcomes.items() if found["ended"] != "ok"}
    assert {name: found for name, found in others.items() if found["ended"] != "refused"} == {}
    assert read == {VALID, "setstate_of_a_class", "items_of_a_class", "reconstructor_with_a_state"}
    assert all(found["message"].isprintable() and len(found["message"]) < 600 for found in others.values())


def test_functions_are_refused_by_name(hostile):
    outcomes = hostile[0]["outcomes"]
    for name, function in {
        "os_system": "posix.system",
        "builtins_eval": "builtins.eval",
        "eval_as_python_2_spells_it": "__builtin__.eval",
        "dotted_names_through_an_innocent_module": "subprocess.os.system",
        "names_out_of_the_memo": "posix.system",
        "legacy_blob_whose_storage_is_a_call_in_a_weight": "posix.system",
    }.items():
        assert f"it calls '{function}', which no known checkpoint does" in outcomes[name]["message"]


def test_what_could_be_slow_or_deep_to_hash_is_no_key(hostile):
    outcomes = hostile[0]["outcomes"]
    for name, kind in {
        "deep tuple as key": "tuple",
        "deep tuple in a set": "tuple",
        "keys_that_collide": "int",
    }.items():
        assert f"it uses a {kind} as a key" in outcomes[name]["message"]


def test_hostile_files_cost_little_time_and_memory(hostile):
    outcomes = hostile[0]["outcomes"]
    assert max(found["seconds"] for found in outcomes.values()) < 15
    assert hostile[0]["grown_mib"] < 75


def check_mutations(tmp_path, seed, count, protocols):
    """`count` of each protocol."""
    model = generator()
    del model.decoder  # fewer weights are more mutations in the same time
    for protocol in protocols:
        content = dumped(snapshot(model, G=None), protocol, OLD_SPELLINGS if protocol == 2 else {})
        (tmp_path / f"protocol {protocol}.pkl").write_bytes(content)
    report = child("mutate", tmp_path, seed, count)
    outcomes = report["outcomes"].values()
    assert [found for found in outcomes if found["ended"] not in ("ok", "refused") or found["events"]] == []
    counts = [sum(found["ended"] == ended for found in outcomes) for ended in ("ok", "refused")]
    assert sum(counts) == count * len(protocols)
    assert min(counts) > sum(counts) / 20, counts  # mutations that bite, and some that do not
    assert len({found["message"] for found in outcomes}) > 20  # they reach many of the checks
    assert report["grown_mib"] < 100


def test_a_thousand_mutations_of_snapshots_end_in_our_error_or_a_result(tmp_path):
    """No error but those that are foreseen, and no event under the hook."""
    check_mutations(tmp_path, seed=0, count=500, protocols=(2, 4))


@pytest.mark.slow
def test_twenty_thousand_mutations_of_snapshots_end_in_our_error_or_a_result(tmp_path):
    check_mutations(tmp_path, seed=1, count=5_000, protocols=(2, 3, 4, 5))
