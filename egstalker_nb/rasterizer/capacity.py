"""How many intersections of Gaussians and tiles a captured rendering on CUDA has memory for."""
from __future__ import annotations

SPARE = 1.25  # of a capacity over the number that was measured


class IsectCapacity:
    """The `isect_capacity` of `rasterize`, from the numbers of intersections that were measured.

    Attributes:
        value: the capacity; 0 before the first measurement.
    """

    def __init__(self) -> None:
        self.value = 0

    def grow(self, num_isects: float) -> None:
        """Make it fit so many intersections, and some more."""
        self.value = max(self.value, int(SPARE * num_isects))

    def scale(self, factor: float) -> None:
        """Make it fit `factor` times what it was made for."""
        self.grow(self.value / SPARE * factor)

    def fits(self, num_isects: int) -> bool:
        """Whether so many were all rendered; otherwise the farthest Gaussians were left out."""
        return num_isects <= self.value
