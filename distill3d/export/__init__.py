"""A stylised subject as a file that other tools read."""

from distill3d.export.mesh import Mesh, extract_mesh, save_mesh

__all__ = ["Mesh", "extract_mesh", "save_mesh"]
