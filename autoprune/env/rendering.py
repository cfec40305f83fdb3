"""What all environments can show: a text, or a picture of bars for what records and tests pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RENDER_MODES = ("ansi", "rgb_array")
WIDTH, BAR, GAP = 256, 12, 4  # pixels
KEPT, REMOVED, GROUND = (37, 99, 235), (203, 213, 225), (255, 255, 255)

Picture = NDArray[np.uint8]


def checked_rendering(mode: str | None) -> str | None:
    """Returns the mode. Raises ValueError where there is no such one; None shows nothing."""
    if mode is not None and mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be None, {' or '.join(map(repr, RENDER_MODES))}, got {mode!r}")
    return mode


def picture_of(shares: Sequence[float]) -> Picture:
    """Returns a bar for each share, one below the other [height, WIDTH, 3].

    Args:
        shares: What is kept of each group, or the like, in [0, 1].
    """
    picture = np.full((GAP + len(shares) * (BAR + GAP), WIDTH, 3), GROUND, np.uint8)
    for index, share in enumerate(shares):
        top = GAP + index * (BAR + GAP)
        picture[top : top + BAR] = REMOVED
        picture[top : top + BAR, : round(WIDTH * min(max(share, 0.0), 1.0))] = KEPT
    return picture
