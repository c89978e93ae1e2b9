"""Arrays to pictures: rows drawn into pixels, pixels packed as PNG data URIs.

A picture has one byte a pixel, a level that a palette turns into a colour: a third of the size and an eighth
of the packing time of four bytes a pixel.
"""

import base64
import io

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Window = tuple[tuple[float, float], tuple[float, float]]
Levels = NDArray[np.uint8]
Shape = NDArray[np.intp]


def disc(radius: int) -> Shape:
    """Returns the pixels (k, 2) of a disc about the origin."""
    dy, dx = _square(radius)
    return _where(dy**2 + dx**2 <= (radius + 0.4) ** 2, radius)


def cross(radius: int) -> Shape:
    """Returns the pixels (k, 2) of a diagonal cross about the origin, three pixels wide."""
    dy, dx = _square(radius)
    return _where(abs(abs(dy) - abs(dx)) <= 1, radius)


def diamond(radius: int) -> Shape:
    """Returns the pixels (k, 2) of the outline of a diamond about the origin, three pixels wide."""
    dy, dx = _square(radius)
    ring = abs(dy) + abs(dx)
    return _where((ring <= radius) & (ring >= radius - 2), radius)


def square(radius: int) -> Shape:
    """Returns the pixels (k, 2) of the outline of a square about the origin, three pixels wide."""
    dy, dx = _square(radius)
    return _where(np.maximum(abs(dy), abs(dx)) >= radius - 2, radius)


def grown(shape: Shape) -> Shape:
    """Returns a shape with all pixels at most two away."""
    return np.unique((shape[:, None] + disc(2)).reshape(-1, 2), axis=0)


def draw(
    x: NDArray, y: NDArray, level: Levels, window: Window, size: tuple[int, int], shape: Shape
) -> Levels:
    """Returns the picture (height, width) of rows stamped with a shape, 0 where there is none.

    The highest level wins a pixel, so the picture does not depend on the order of the rows.

    Args:
        x: Horizontal coordinates (n,); rows that are NaN or outside the window are not drawn.
        y: Vertical coordinates (n,), upwards.
        level: What to write for each row (n,), 1 to 255.
        window: The data coordinates ((left, right), (bottom, top)) of the picture's edges.
        size: Width and height in pixels.
        shape: Pixels (k, 2) to stamp around each row, as (down, right).
    """
    (left, right), (bottom, top) = window
    width, height = size
    seen = np.flatnonzero((x >= left) & (x <= right) & (y >= bottom) & (y <= top))
    column = ((x[seen] - left) * (width / (right - left))).astype(np.int32)
    line = ((top - y[seen]) * (height / (top - bottom))).astype(np.int32)
    np.minimum(column, width - 1, out=column)
    np.minimum(line, height - 1, out=line)
    reach = int(abs(shape).max())
    if len(seen) < width * height // 32:  # few rows: each is stamped, and not all pixels are looked at
        stride = width + 2 * reach
        around = (shape[:, 0] + reach) * stride + shape[:, 1] + reach
        canvas = np.zeros((height + 2 * reach) * stride, dtype=np.uint8)
        np.maximum.at(canvas, (line * stride + column)[:, None] + around, level[seen][:, None])
        return canvas.reshape(-1, stride)[reach : reach + height, reach : reach + width].copy()
    points = np.zeros(height * width, dtype=np.uint8)
    np.maximum.at(points, line * width + column, level[seen])
    padded = np.pad(points.reshape(height, width), reach)
    picture = np.zeros((height, width), dtype=np.uint8)
    for i, j in reach - shape:
        np.maximum(picture, padded[i : i + height, j : j + width], out=picture)
    return picture


def png_uri(pixels: Levels, palette: NDArray[np.uint8] | None = None) -> str:
    """Returns a PNG data URI of grey or RGB pixels (h, w[, 3]), or of levels (h, w) and an RGBA palette."""
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes(), "RGBA")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def thumbnails(images: ArrayLike, size: int = 48) -> list[str]:
    """Returns one PNG data URI for each image, its values stretched from black to white.

    Small images grow by a whole factor without smoothing, until the longer side has at least `size` pixels;
    larger ones shrink to `size`.

    Args:
        images: Grey (m, h, w), (m, 1, h, w) or colour (m, 3, h, w), (m, h, w, 3) images of any numeric type.
        size: Pixels of the longer side.
    """
    stack = np.asarray(images)
    if stack.ndim == 4 and stack.shape[1] in (1, 3):
        stack = np.moveaxis(stack, 1, -1)  # (m, h, w, c)
    if stack.ndim == 4 and stack.shape[-1] == 1:
        stack = stack[..., 0]
    if stack.ndim != 3 and not (stack.ndim == 4 and stack.shape[-1] == 3):
        raise ValueError(f"expected images (m, h, w), (m, 1|3, h, w) or (m, h, w, 3) but got {stack.shape}")
    return [png_uri(_resized(_stretched(image), size)) for image in stack]


def _stretched(image: NDArray) -> Levels:
    """Returns an image with its smallest value at 0 and its largest at 255; a constant image is black."""
    values = np.nan_to_num(image.astype(np.float64))
    low, high = values.min(), values.max()
    return ((values - low) * (255 / (high - low if high > low else 1))).round().astype(np.uint8)


def _resized(image: Levels, size: int) -> Levels:
    """Returns an image whose longer side has about `size` pixels, without smoothing where it grows."""
    longer = max(image.shape[:2])
    if longer <= size:
        factor = -(-size // longer)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    smaller = Image.fromarray(image)
    smaller.thumbnail((size, size))
    return np.asarray(smaller)


def _square(radius: int) -> tuple[NDArray, NDArray]:
    """Returns the (down, right) offsets of the square of that radius, as an open grid."""
    down, right = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return down, right


def _where(mask: NDArray[np.bool_], radius: int) -> Shape:
    """Returns the offsets (k, 2) from the centre of the true cells of a square mask."""
    return np.argwhere(mask) - radius
