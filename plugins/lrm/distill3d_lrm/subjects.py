"""Who is reconstructed: photographs, prepared as the model reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from distill3d.draws import Draws
from distill3d.errors import ConfigError
from distill3d_lrm.foreground import Removal, with_alpha
from distill3d_lrm.photos import photo_paths, read_photo
from distill3d_lrm.preparation import Preparation

KEPT = 128  # prepared photos in memory; TripoSR's are 3 MB each


class Subjects(ABC):
    """Pictures by draw and by number, each (3, image_size, image_size) in [0, 1]."""

    @abstractmethod
    def drawn(self, draws: Draws) -> Tensor:
        """(S, 3, h, w): one for each of `draws.subjects`."""

    @abstractmethod
    def of_seed(self, seed: int) -> Tensor:
        """(3, h, w): the subject that users know by this number."""


class Studio:
    """Photo files to pictures that the model reads."""

    def __init__(self, preparation: Preparation, removal: Removal):
        self.preparation, self.removal = preparation, removal

    def picture(self, path: Path) -> Tensor:
        """(3, h, w).

        Raises:
            ConfigError: if it cannot be read, or has no foreground.
        """
        try:
            return self.preparation(with_alpha(read_photo(path), self.removal, path))
        except ConfigError as error:
            named = str(path) in str(error)
            raise error if named else ConfigError(f"{path}: {error}") from error


class PhotoSubjects(Subjects):
    """Photo files and folders of them, looked for when the first one is asked for: a finished run needs none."""

    def __init__(self, paths: Sequence[str], studio: Studio):
        self.given, self.studio = tuple(paths), studio
        self._picture: Callable[[Path], Tensor] = lru_cache(KEPT)(studio.picture)

    @cached_property
    def paths(self) -> list[Path]:
        """The picture files."""
        return photo_paths(self.given)

    @cached_property
    def usable(self) -> list[Path]:
        """The same, each of them prepared once: no run ends at a photo that cannot be read or shows nobody."""
        for path in self.paths:
            self._picture(path)
        return self.paths

    def drawn(self, draws: Draws) -> Tensor:
        return torch.stack([self._picture(self.usable[n]) for n in draws.integers("subject", len(self.usable))])

    def of_seed(self, seed: int) -> Tensor:
        return self._picture(self.paths[seed % len(self.paths)])


class NoSubjects(Subjects):
    """Nobody was given."""

    MISSING = "This backbone reconstructs photographs. Say whose: --subjects FOLDER, or --subjects PHOTO, repeatable."

    def drawn(self, draws: Draws) -> Tensor:
        raise ConfigError(self.MISSING)

    def of_seed(self, seed: int) -> Tensor:
        raise ConfigError(self.MISSING)
