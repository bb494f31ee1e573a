"""Do gradients reach what is trained, and does everything else stay as it is?"""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.errors import UnknownNameError
from distill3d.renderer import Render, Renderer, frozen_copy
from distill3d.testing.contract import ContractError, difference, expect, expect_same
from distill3d.testing.renderer_bench import RendererBench, changed_tensors, training_only


def groups_are_named(bench: RendererBench) -> None:
    """trainable() returns parameters by their state_dict names, and refuses an unknown group."""
    trained = bench.renderer.trainable("default")
    expect(bool(trained), 'trainable("default")', "at least one parameter", "none")
    own = dict(bench.renderer.named_parameters(remove_duplicate=False))
    for name, parameter in trained.items():
        known = own.get(name) is parameter
        expect(known, f"trainable()[{name!r}]", "the parameter that state_dict calls so", "another")
        rate = bench.renderer.rate(name)
        expect(0 < rate < float("inf"), f"rate({name!r})", "a positive number", rate)
    got = "a result"
    try:
        bench.renderer.trainable("no such group")
    except UnknownNameError:
        return
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    expect(False, 'trainable("no such group")', "distill3d.errors.UnknownNameError", got)


def nothing_is_trained_in_secret(bench: RendererBench) -> None:
    """With every parameter frozen, no picture asks for a gradient."""
    with training_only(bench.renderer, {}):
        scene = bench.renderer.scene(bench.codes)
        pictures = bench.renderer.render(scene, bench.cameras).tensors()
    asking = [name for name, tensor in {**scene, **pictures}.items() if tensor.requires_grad]
    expect(not asking, "scene and render with every parameter frozen", "no graph", f"one through {', '.join(asking)}")


def gradients_reach_what_is_trained(bench: RendererBench) -> None:
    """Every tensor of trainable("default") gets a finite gradient from image, raw and opacity of two views."""
    gradients = _one_graph(bench)
    missing = [name for name, gradient in gradients.items() if gradient is None]
    expect(not missing, 'trainable("default")', "a gradient for every tensor", f"none for {', '.join(missing)}")
    broken = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    expect(not broken, 'The gradients of trainable("default")', "finite numbers", f"others in {', '.join(broken)}")
    largest = max(float(g.abs().max()) for g in gradients.values() if g is not None)
    expect(largest > 0, 'The gradients of trainable("default")', "some that are not zero", "zeros only")


def scene_is_all_that_render_reads(bench: RendererBench) -> None:
    """Gradients that stop at the scene, view by view, and then go on equal those of one graph."""
    whole, parts = _one_graph(bench), _by_scene_leaf(bench)
    largest = max(float(g.norm()) for g in whole.values() if g is not None)
    for name, expected in whole.items():
        # a gradient that is tiny beside the others is rounding: no relative tolerance holds for it
        if expected is None or float(expected.norm()) < 1e-6 * largest:
            continue
        far = difference(parts[name], expected)
        expect(
            far <= max(bench.tolerance, 1e-9),
            f"The gradient of {name} through a scene leaf",
            "that of one graph (nothing that render reads may bypass the scene)",
            f"a relative difference of {far:.2g}",
        )


def frozen_copy_is_a_reference(bench: RendererBench) -> None:
    """frozen_copy renders the same, shares what is not trained, and keeps its own copy of what is."""
    trained = bench.renderer.trainable("default")
    reference = frozen_copy(bench.renderer, trained.values())
    own, ids = dict(bench.renderer.named_parameters()), {id(parameter) for parameter in trained.values()}
    for name, parameter in reference.named_parameters():
        wanted = "a copy" if id(own[name]) in ids else "shared"
        got = "shared" if parameter is own[name] else "a copy"
        expect(got == wanted, f"{name} in frozen_copy", wanted, got)
    camera = bench.orbit([(0.1, 0.1)], subjects=1)
    before = _seen(bench, bench.renderer, camera)
    expect_same("The picture of frozen_copy", _seen(bench, reference, camera), before, 0.0, "the same bits")
    with torch.no_grad():
        for parameter in reference.trainable("default").values():
            parameter.mul_(0.9).add_(0.01)
    after = _seen(bench, bench.renderer, camera)
    expect_same("The picture after weights of a copy changed", after, before, 0.0, "the same bits (a copy is apart)")
    changed = difference(_seen(bench, reference, camera), before)
    expect(changed > 0, "The picture of a copy whose trained weights changed", "another one", "the same")
    tensors = bench.renderer.state_dict()
    reference.load_state_dict({name: tensors[name] for name in trained}, strict=False)
    loaded = _seen(bench, reference, camera)
    expect_same("The picture after load_state_dict of the trained tensors", loaded, before, 0.0, "the same bits")


def rendering_changes_no_weight(bench: RendererBench) -> None:
    """scene and render leave every weight and buffer as it was."""
    _ = bench.pictures
    changed = changed_tensors(bench.renderer, bench.before)
    expect(not changed, "Weights and buffers after scene and render", "unchanged", f"changes in {', '.join(changed)}")


def _one_graph(bench: RendererBench) -> dict[str, Tensor | None]:
    """The gradient of every trained tensor, both views in one graph."""
    trained = bench.renderer.trainable("default")
    with training_only(bench.renderer, trained):
        scene = bench.renderer.scene(bench.codes)
        total = torch.stack([_weighted_sum(bench.renderer.render(scene, bench.camera(v)), v) for v in range(2)]).sum()
        expect(total.requires_grad, 'Pictures while trainable("default") is trained', "a graph", "none")
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return dict(zip(trained, found))


def _weighted_sum(pictures: Render, view: int) -> Tensor:
    """A scalar that weights every pixel of this view differently."""
    shown = [picture for picture in (pictures.image, pictures.raw, pictures.opacity) if picture is not None]
    draw = torch.Generator().manual_seed(view)
    return torch.stack([(torch.randn(p.shape, generator=draw).to(p) * p).sum() for p in shown]).sum()


def _by_scene_leaf(bench: RendererBench) -> dict[str, Tensor]:
    """The same gradient as a step takes it: each view back to the scene's leaves, then once through the scene."""
    trained = bench.renderer.trainable("default")
    weights = list(trained.values())
    with training_only(bench.renderer, trained):
        graph = bench.renderer.scene(bench.codes)
        leaves = {name: entry.detach().requires_grad_(entry.requires_grad) for name, entry in graph.items()}
        ends = [graph[name] for name, leaf in leaves.items() if leaf.requires_grad]
        inputs = [*(leaf for leaf in leaves.values() if leaf.requires_grad), *weights]
        sums = [torch.zeros_like(tensor) for tensor in inputs]
        try:
            for view in range(2):
                total = _weighted_sum(bench.renderer.render(leaves, bench.camera(view)), view)
                if total.requires_grad:
                    _add(sums, torch.autograd.grad(total, inputs, allow_unused=True))
        except RuntimeError as error:
            raise ContractError(
                "The gradient of render, view by view from the same scene: expected that render reads no graph but "
                f"that of the scene it is given, got {error}"
            ) from error
        arrived, direct = sums[: len(ends)], sums[len(ends) :]
        if ends:
            _add(direct, torch.autograd.grad(ends, weights, arrived, allow_unused=True))
    return dict(zip(trained, direct))


def _add(sums: list[Tensor], more: tuple[Tensor | None, ...]) -> None:
    for total, extra in zip(sums, more):
        if extra is not None:
            total += extra


def _seen(bench: RendererBench, renderer: Renderer, camera: Cameras) -> Tensor:
    with torch.no_grad():
        image = renderer.render(renderer.scene(bench.codes[:1]), camera).image
    assert image is not None
    return image


WEIGHT_CHECKS = (
    rendering_changes_no_weight,
    groups_are_named,
    nothing_is_trained_in_secret,
    gradients_reach_what_is_trained,
    scene_is_all_that_render_reads,
    frozen_copy_is_a_reference,
)
