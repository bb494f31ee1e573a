"""EG3D and PanoHead as backbones. Every `distill3d` command imports this module, so it imports nothing heavy."""

from distill3d.hookspecs import hookimpl


@hookimpl
def register_renderers(register):
    register("eg3d", "distill3d_eg3d.loading:load_eg3d")
    register("panohead", "distill3d_eg3d.loading:load_panohead")


@hookimpl
def register_architectures(register):
    register("eg3d", "distill3d_eg3d.shapes:shape_of_eg3d")
    register("panohead", "distill3d_eg3d.shapes:shape_of_panohead")


@hookimpl
def register_commands(register):
    register("eg3d", "distill3d_eg3d.cli:app")
