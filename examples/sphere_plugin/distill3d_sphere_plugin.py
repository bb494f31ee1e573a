"""What the package offers. Every `distill3d` command imports this module, so it imports nothing heavy."""

from distill3d.hookspecs import hookimpl


@hookimpl
def register_renderers(register):
    register("sphere", "distill3d_sphere:load_sphere")


@hookimpl
def register_scorers(register):
    register("colour", "distill3d_sphere:load_colour")
