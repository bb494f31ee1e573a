"""Training of the embedded reconstruction model: `python -m distill3d_lrm.train --work DIR`."""
