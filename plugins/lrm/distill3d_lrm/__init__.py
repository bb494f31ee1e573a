"""TripoSR and OpenLRM as backbones. Every `distill3d` command imports this module, so it imports nothing heavy."""

from distill3d.hookspecs import hookimpl


@hookimpl
def register_renderers(register):
    register("triposr", "distill3d_lrm.loading:load_triposr")
    register("openlrm", "distill3d_lrm.loading:load_openlrm")
    register("tiny-lrm", "distill3d_lrm.tiny:load_tiny_lrm")


@hookimpl
def register_architectures(register):
    register("triposr", "distill3d_lrm.shapes:shape_of_triposr")
    register("openlrm", "distill3d_lrm.shapes:shape_of_openlrm")
