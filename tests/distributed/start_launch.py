"""The launcher as a process of its own, for tests that send it signals."""

import sys

from distill3d.errors import Distill3dError
from distill3d.training.launch import launch

if __name__ == "__main__":
    try:
        sys.exit(launch(2, "tests.distributed.launched", sys.argv[1:]))
    except Distill3dError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
