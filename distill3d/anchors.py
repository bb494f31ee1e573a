"""The anchors that a run can be given by name, on top of any method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from distill3d.cameras import CameraPrior
from distill3d.errors import UnknownNameError
from distill3d.methods import Method
from distill3d.objectives.anchors import OpacityAnchor, PerceptualAnchor, PlaneVariation, SceneAnchor, falling
from distill3d.objectives.term import Weighted
from distill3d.renderer import RunDefaults
from distill3d.scorer import Scorer
from distill3d.views import View

AnchorFactory = Callable[[float, Scorer, RunDefaults], Weighted]


def input_view(front: CameraPrior) -> View:
    """The camera straight ahead: where a photograph was taken from, for a backbone that reads one."""
    return View("input", CameraPrior(yaw=0, pitch=0, focal=front.focal, radius=front.radius))


def _opacity(weight: float, scorer: Scorer, defaults: RunDefaults) -> Weighted:
    return Weighted(weight, OpacityAnchor(View("main", defaults.front)))  # the view of the methods' single pictures


def _perceptual(weight: float, scorer: Scorer, defaults: RunDefaults) -> Weighted:
    return Weighted(weight, PerceptualAnchor(input_view(defaults.front), scorer, defaults.stage))


def _variation(weight: float, scorer: Scorer, defaults: RunDefaults) -> Weighted:
    return Weighted(weight, PlaneVariation())


def _scene(weight: float, scorer: Scorer, defaults: RunDefaults) -> Weighted:
    return Weighted(falling(weight, defaults.steps), SceneAnchor())


ANCHORS: Mapping[str, AnchorFactory] = {
    "opacity": _opacity,
    "perceptual": _perceptual,
    "variation": _variation,
    "scene": _scene,
}


def check_anchors(names: Iterable[str]) -> None:
    """Refuse a name that no anchor has.

    Raises:
        UnknownNameError: naming those that there are.
    """
    for name in names:
        if name not in ANCHORS:
            raise UnknownNameError("anchor", name, ANCHORS)


def anchored(method: Method, anchors: Mapping[str, float], scorer: Scorer, defaults: RunDefaults) -> Method:
    """The method with these anchors after its own terms, each called "anchor/NAME".

    Args:
        anchors: weights by name; 0 is none.
        defaults: of the run; `defaults.steps` is when the scene's anchor has let go.
    Raises:
        UnknownNameError: for a name that no anchor has.
    """
    check_anchors(anchors)
    # In their own order, not in that of the table: sums differ by it in their last bits, and a file sorts tables.
    given = {name: anchors[name] for name in ANCHORS if anchors.get(name)}
    added = {f"anchor/{name}": ANCHORS[name](weight, scorer, defaults) for name, weight in given.items()}
    return replace(method, terms={**method.terms, **added}) if added else method
