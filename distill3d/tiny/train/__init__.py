"""How the weights that ship with the package were made: `python -m distill3d.tiny.train --help`."""
