"""Plugins: what they offer is found, and a broken one breaks nothing else."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from distill3d.errors import ConfigError, UnknownNameError
from distill3d.hookspecs import hookimpl
from distill3d.plugins import collect
from distill3d.styles import Style


def plugin(name, **functions):
    """A module that offers what its functions register."""
    module = ModuleType(name)
    for hook, function in functions.items():
        setattr(module, hook, hookimpl(function))
    sys.modules[name] = module
    return EntryPoint(name, name, "distill3d")


def offering(kind, name, target):
    def register_one(register):
        register(name, target)

    return {f"register_{kind}": register_one}


def test_backbones_styles_and_commands_are_found():
    point = plugin(
        "good",
        **offering("renderers", "mine", "os.path:join"),
        **offering("commands", "own", "os:getcwd"),
        register_styles=lambda register: register(Style("pirate", "Portrait of a pirate")),
    )
    registry = collect([point])
    assert registry.names("backbone") == ["mine"]
    assert registry.names("command") == ["own"]
    assert registry.styles["pirate"].prompt == "Portrait of a pirate"
    assert registry.find("backbone", "mine").load()("a", "b") == "a/b"
    assert registry.plugins[0].offers == ["backbone mine", "command own", "style pirate"]


def test_a_plugin_that_fails_to_import_is_listed_with_its_reason_and_breaks_nothing():
    registry = collect(
        [EntryPoint("bad", "no_such_module_here", "distill3d"), plugin("good", **offering("scorers", "s", "os:getcwd"))]
    )
    broken = {p.name: p.broken for p in registry.plugins}
    assert "No module named 'no_such_module_here'" in broken["bad"]
    assert broken["good"] is None
    assert registry.names("scorer") == ["s"]


def test_a_hook_that_raises_is_that_plugins_fault():
    def register_scorers(register):
        raise RuntimeError("out of luck")

    registry = collect([plugin("raises", register_scorers=register_scorers)])
    assert registry.plugins[0].broken == "RuntimeError: out of luck"


def test_a_name_that_is_taken_stays_with_the_first():
    registry = collect(
        [plugin("a", **offering("scorers", "s", "os:getcwd")), plugin("b", **offering("scorers", "s", "os:getpid"))]
    )
    assert registry.find("scorer", "s").plugin == "a"
    assert "already offers the scorer 's'" in registry.plugins[1].broken


def test_an_offer_that_cannot_be_imported_names_its_plugin():
    registry = collect([plugin("late", **offering("renderers", "r", "missing_module:load"))])
    with pytest.raises(ConfigError, match=r"'r' of plugin 'late' cannot be loaded.*missing_module"):
        registry.find("backbone", "r").load()


def test_an_unknown_name_suggests_the_nearest():
    registry = collect([plugin("near", **offering("renderers", "eg3d", "os:getcwd"))])
    with pytest.raises(UnknownNameError, match=r"No backbone is called 'egd3'\. Installed: eg3d\. Did you mean 'eg3d'"):
        registry.find("backbone", "egd3")


def test_the_core_registers_like_anybody_else():
    from distill3d.plugins import registry

    assert registry().plugins[0].name == "builtin"
    assert {"tiny"} <= set(registry().names("backbone"))
    assert {"tiny", "diffusers", "gaussian"} <= set(registry().names("scorer"))
    assert {"ld", "ld-paper", "ld-released", "sds", "csd"} <= set(registry().names("method"))
    for kind in ("backbone", "scorer", "method"):
        for name in registry().names(kind):
            if registry().find(kind, name).plugin == "builtin":
                assert callable(registry().find(kind, name).load())
