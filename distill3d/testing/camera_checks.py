"""Do the cameras mean what distill3d.cameras says?

Nothing is known of the subject, so every check compares pictures of one subject with each other: a ray that two
cameras share must show the same, and a surface seen from the front must turn up where a moved camera should see it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.testing.contract import NotApplicable, expect, rms
from distill3d.testing.renderer_bench import FARTHER, STEP, Look, RendererBench
from distill3d.volume import pixel_rays

VISIBLE = 0.6  # share of a surface that is sure to be seen by a camera that moved by STEP
FLAT = 1e-3  # differences of pictures below this are nothing to see


def picture_changes_with_yaw(bench: RendererBench) -> None:
    """The picture changes when the camera moves around the subject."""
    front, moved = bench.looks["front"], bench.looks["yaw"]
    change = rms(moved.raw - front.raw)
    what = f"The picture from yaw +{STEP}"
    # FLAT would be too strict: an untrained backbone shows little
    expect(change > 1e-5, what, "another one than from the front", f"a change of {change:.2g}")


def principal_point_moves_the_picture(bench: RendererBench) -> None:
    """A principal point moved right (down) moves the picture right (down)."""
    front = _pattern(bench.looks["front"])
    for name, axis, back in (("right", -1, "left"), ("down", -2, "up")):
        moved, shift = _pattern(bench.looks[name], like=bench.looks["front"]), bench.shift
        length = front.shape[axis] - shift
        as_told = rms(moved.narrow(axis, shift, length) - front.narrow(axis, 0, length))
        opposite = rms(moved.narrow(axis, 0, length) - front.narrow(axis, shift, length))
        unmoved = rms(moved - front)
        if max(opposite, unmoved) < FLAT and as_told < FLAT:
            raise NotApplicable("the picture is too even to see it move")
        got = f"one that moved {back}" if opposite < min(as_told, unmoved) else "one that did not move by that much"
        what = f"The picture with its principal point {shift} pixels to the {'right' if axis == -1 else 'bottom'}"
        expect(as_told < 0.5 * min(opposite, unmoved), what, f"one that moved {name} by {shift} pixels", got)


def focal_length_magnifies(bench: RendererBench) -> None:
    """Three times the focal length shows the middle third of the picture."""
    front, zoomed = (torch.cat([look.raw, look.opacity]) for look in (bench.looks["front"], bench.looks["zoomed"]))
    size = front.shape[-1]
    places = [j for j in range(size) if 0 <= 3 * j + 1 - size < size]
    inner = torch.tensor(places, device=front.device)
    expected = front[:, inner][:, :, inner]
    enlarged = zoomed[:, 3 * inner + 1 - size][:, :, 3 * inner + 1 - size]
    as_told, unmoved = rms(enlarged - expected), rms(zoomed[:, inner][:, :, inner] - expected)
    if max(as_told, unmoved) < FLAT:
        raise NotApplicable("the middle of the picture is too even to see it grow")
    got = f"a mean difference of {as_told:.2g} to it"
    expect(as_told < 0.5 * unmoved, "The picture with 3 times the focal length", "the middle third, enlarged", got)


def distance_shrinks_the_subject(bench: RendererBench) -> None:
    """A camera farther away sees a smaller subject, and a depth that is larger by as much."""
    near, far = bench.surface("front", "farther")
    edge = torch.cat([near.opacity[0, 0], near.opacity[0, -1], near.opacity[0, :, 0], near.opacity[0, :, -1]])
    if edge.mean() > 0.5:
        raise NotApplicable("the subject reaches over the edges of the picture")
    ratio = float(far.opacity.sum() / near.opacity.sum())
    what = f"The opacity's area from {FARTHER} times the distance"
    expect(ratio < 0.95, what, f"about {FARTHER**-2:.2f} of what it was", f"{ratio:.2f} of it")
    moved = float(far.depth[0][far.solid].mean() - near.depth[0][near.solid].mean())
    back = (FARTHER - 1) * bench.radius
    what = f"The depth of the subject from {back:.2f} world units farther away"
    expect(0.5 * back < moved < 1.5 * back, what, f"larger by about {back:.2f}", f"larger by {moved:.2f}")


def yaw_and_pitch_go_the_right_way(bench: RendererBench) -> None:
    """Positive yaw moves the camera towards +x, positive pitch upwards, and depth is the distance in the world.

    The front's surface, placed in the world by its depth, is looked for in the moved camera's picture. It must not
    fit a camera that moved another way clearly better.
    """
    (front,) = bench.surface("front")
    told = {
        f"yaw +{STEP}": (STEP, 0.0),
        f"yaw -{STEP}": (-STEP, 0.0),
        f"pitch +{STEP}": (0.0, STEP),
        f"pitch -{STEP}": (0.0, -STEP),
        "the front": (0.0, 0.0),
    }
    for name, label in (("yaw", f"yaw +{STEP}"), ("pitch", f"pitch +{STEP}")):
        misfits = {
            other: _misfit(front, bench.looks[name], bench.orbit([angles], subjects=1), bench.radius)
            for other, angles in told.items()
        }
        best = min(misfits, key=lambda other: misfits[other])
        # twice: an untrained backbone is a fog, whose depth is no surface; a wrong axis misfits by 5 times and more
        fits = misfits[label] < 0.01 or misfits[label] <= 2 * misfits[best]
        expect(
            fits,
            f"The picture from {label}",
            "the front's surface as that camera sees it",
            f"what {best} would show (misfit {misfits[best]:.3f} against {misfits[label]:.3f}): "
            "the axes or the depth are not the canonical world's",
        )


def _pattern(look: Look, like: Look | None = None) -> Tensor:
    # opacity first: a background may be painted on the screen, and then no principal point moves it
    return look.opacity if (like or look).opacity.std() > 0.05 else look.raw


def _misfit(front: Look, moved: Look, camera: Cameras, radius: float) -> float:
    """How badly `moved` shows the front's surface if `camera` took it: colours, and depth in tenths of the radius."""
    size = front.raw.shape[-1]
    origins, directions = pixel_rays(front.camera, size, size)
    points = (origins + directions * front.depth.view(1, 1, -1, 1))[0, 0][front.solid.flatten()]  # (N, 3)
    pose, lens = camera.cam2world[0, 0], camera.intrinsics[0, 0]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    place = local @ lens.T
    place = 2 * place[:, :2] / place[:, 2:].clamp_min(1e-6) - 1
    shown = torch.cat([moved.raw, moved.depth])[None]
    found = F.grid_sample(shown, place[None, None].to(shown), padding_mode="border", align_corners=False)[0, :, 0]
    colour = (found[:3] - front.raw[:, front.solid]).abs().mean(0)
    distance = (points - pose[:3, 3]).norm(dim=-1)
    depth = (found[3] - distance).abs() / (0.1 * radius)
    # the best of the points: the others may be hidden from the moved camera
    best = (colour + depth).sort().values[: max(1, int(VISIBLE * len(points)))]
    return float(best.mean())


CAMERA_CHECKS = (
    picture_changes_with_yaw,
    principal_point_moves_the_picture,
    focal_length_magnifies,
    distance_shrinks_the_subject,
    yaw_and_pitch_go_the_right_way,
)
