"""What every NeRF-like backbone shares: rays, samples along them, plane look-up, compositing.

All functions are pure, differentiable and hold no random state; jitter comes in as a tensor. Conventions that differ
between backbones are arguments.
"""

from distill3d.volume.bounds import box_interval, ellipsoid_interval, hull_interval
from distill3d.volume.compositing import (
    Composite,
    composite_midpoints,
    composite_samples,
    interval_weights,
    mean_depth,
    ray_weights,
)
from distill3d.volume.planes import (
    EG3D_AXES,
    PANOHEAD_AXES,
    XY_XZ_YZ,
    XY_XZ_ZY,
    Axes,
    Lookup,
    mean_of_planes,
    sample_planes,
)
from distill3d.volume.rays import along, pixel_rays
from distill3d.volume.sampling import blurred, even_quantiles, merge, sample_histogram, stratified
from distill3d.volume.two_pass import gathered, gathered_in_order, importance

__all__ = [
    "EG3D_AXES",
    "PANOHEAD_AXES",
    "XY_XZ_YZ",
    "XY_XZ_ZY",
    "Axes",
    "Composite",
    "Lookup",
    "along",
    "blurred",
    "box_interval",
    "composite_midpoints",
    "composite_samples",
    "ellipsoid_interval",
    "even_quantiles",
    "gathered",
    "gathered_in_order",
    "hull_interval",
    "importance",
    "interval_weights",
    "mean_depth",
    "mean_of_planes",
    "merge",
    "pixel_rays",
    "ray_weights",
    "sample_histogram",
    "sample_planes",
    "stratified",
]
