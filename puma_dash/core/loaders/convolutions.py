"""Padding, stride and pooling of a chain of convolutions, solved from the size of what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from puma_dash.core.types import ProjectError

WHOLE = 0
"""Pooling over the whole image, in place of a side."""
MOST_UNKNOWN = 8
"""Convolutions of which the names do not tell whether pooling follows."""
TOLD = 4

PerLayer = tuple[int, ...]
Setting = int | PerLayer | None


@dataclass(frozen=True)
class Convolution:
    """What is known of one convolution."""

    kernel: tuple[int, int]
    pooled: bool | None
    """Whether pooling follows; None where the names do not tell."""


@dataclass(frozen=True)
class Reading:
    """What shapes do not tell, for each convolution."""

    padding: PerLayer
    stride: PerLayer
    pool: PerLayer

    def places(self, convolutions: Sequence[Convolution], sides: tuple[int, int]) -> int:
        """Pixels (height x width) that come out of images of these sides; 0 if they are too small."""
        height, width = sides
        for one, padding, stride, pool in zip(
            convolutions, self.padding, self.stride, self.pool, strict=True
        ):
            height, width = (
                (side + 2 * padding - kernel) // stride + 1
                for side, kernel in zip((height, width), one.kernel, strict=True)
            )
            if min(height, width) < 1:
                return 0
            height, width = (1, 1) if pool == WHOLE else (height // pool, width // pool)
        return height * width

    def __str__(self) -> str:
        """As lines of the [model] table."""
        parts = {"padding": self.padding, "stride": self.stride, "pool": self.pool}
        return ", ".join(
            f"{name} = {values[0] if len(set(values)) == 1 else list(values)}"
            for name, values in parts.items()
        )


def solve(
    convolutions: Sequence[Convolution],
    sides: tuple[int, int],
    places: int,
    padding: Setting = None,
    stride: Setting = None,
    pool: Setting = None,
) -> Reading:
    """The one reading that leaves ``places`` pixels of images with these sides.

    What is None is tried: no padding or as much as keeps the size, strides of 1 or 2, pooling by 2 where the
    names leave room for it, or over the whole image at the end.

    Raises:
        ProjectError: no reading fits, or several do; the message tells them as lines of the [model] table.
    """
    count = len(convolutions)
    if pool is None and sum(one.pooled is None for one in convolutions) > MOST_UNKNOWN:
        raise ProjectError(
            f"expected pool in the [model] table, since the names of {count} convolutions do not tell where "
            "pooling follows, but it is not there; try pool = [1, 2, ...], one number for each."
        )
    same = tuple((min(one.kernel) - 1) // 2 for one in convolutions)
    tried = product(
        _choices("padding", padding, {(0,) * count, same}, count),
        _choices("stride", stride, {(1,) * count, (2,) * count}, count),
        _pools(convolutions, pool),
    )
    fitting = [r for r in (Reading(*each) for each in tried) if r.places(convolutions, sides) == places]
    one_pixel = {(r.padding, r.stride, r.pool[:-1]) for r in fitting if r.pool[-1] == 1}  # nothing to pool
    fitting = [
        r for r in fitting if r.pool[-1] != WHOLE or (r.padding, r.stride, r.pool[:-1]) not in one_pixel
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        more = f" and {len(fitting) - TOLD} more" if len(fitting) > TOLD else ""
        raise ProjectError(
            f"expected shapes that tell padding, stride and pooling, but {len(fitting)} readings fit: "
            f"{'; '.join(map(str, fitting[:TOLD]))}{more}; try writing yours into the [model] table."
        )
    raise ProjectError(
        f"expected convolutions that leave {places} pixels of images of {sides[0]} x {sides[1]}, as the "
        "first Linear layer takes them, but no usual padding, stride and pooling does; try "
        "padding, stride and pool in the [model] table (a number for all, or a list), or other inputs."
    )


def _choices(name: str, setting: Setting, usual: set[PerLayer], count: int) -> list[PerLayer]:
    """The values to try: the setting alone, or the usual ones."""
    if setting is None:
        return sorted(usual)
    values = (setting,) * count if isinstance(setting, int) else setting
    if len(values) != count:
        raise ProjectError(
            f"expected {name} for each of {count} convolutions, but got {len(values)}; "
            "try one number for all."
        )
    return [values]


def _pools(convolutions: Sequence[Convolution], setting: Setting) -> list[PerLayer]:
    """The poolings to try; one number stands for every convolution that the names leave room to pool."""
    if isinstance(setting, int):
        return [tuple(1 if one.pooled is False else setting for one in convolutions)]
    if setting is not None:
        return _choices("pool", setting, set(), len(convolutions))
    options = [{True: (2,), False: (1,), None: (1, 2)}[one.pooled] for one in convolutions]
    if convolutions[-1].pooled is not False:
        options[-1] += (WHOLE,)
    return list(product(*options))
