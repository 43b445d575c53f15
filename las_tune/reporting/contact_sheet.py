"""Contact sheets: pairs of images with captions, composed with Pillow, which is much faster than matplotlib here.

The background is white in every theme. Errors are marked by a frame and by the caption, not by color alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
TILE_PX = 208
GAP_PX = 8
LINE_PX = 19
TEXT_PX = 14
CELL_PX = (2 * TILE_PX + 18, TILE_PX + 2 * LINE_PX + 16)
"""Width and height of a cell, including the gap after it."""
INK, PALE, RULE = "#1a1a1a", "#5f5f5f", "#c8c8c8"
WRONG = "#D55E00"
"""Vermillion of the color-blind safe palette of Okabe and Ito."""


@dataclass(frozen=True)
class Cell:
    """Two images side by side with a caption.

    images    each (TILE_PX, TILE_PX, 3) uint8 RGB
    lines     caption; the first line is emphasized
    is_wrong  whether the images are framed in vermillion
    """

    images: tuple[Array, Array]
    lines: tuple[str, str]
    is_wrong: bool = False


@dataclass(frozen=True)
class Block:
    """An optional heading and rows of cells; without cells, the word "none"."""

    heading: str
    cells: Sequence[Cell]
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        rows = -(-len(self.cells) // self.columns)
        return self.columns * CELL_PX[0], self.heading_height + (rows * CELL_PX[1] if rows else 2 * LINE_PX)

    @property
    def heading_height(self) -> int:
        """Height of the heading in pixels; 0 without one."""
        return LINE_PX + GAP_PX if self.heading else 0


def write_sheet(path: Path, title: str, note: str, blocks: Sequence[Block], bar: Array | None = None) -> None:
    """Write blocks side by side under a title.

    Args:
        path: the PNG file.
        title: title of the sheet.
        note: one line below the title that explains how to read the sheet.
        blocks: from left to right.
        bar: (256, 3) uint8, the colors of a color bar from 0 to 1 in the upper right; None for no color bar.
    """
    top = 30 + LINE_PX + 2 * GAP_PX
    text_width = int(max(font(20).getlength(title) + (300 if bar is not None else 0), font(13).getlength(note)))
    width = max(sum(block.size[0] for block in blocks) + GAP_PX, text_width + 2 * GAP_PX)
    sheet = Image.new("RGB", (width, top + max(block.size[1] for block in blocks)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX), title, INK, font(20))
    draw.text((GAP_PX, GAP_PX + 28), note, PALE, font(13))
    if bar is not None:
        _draw_bar(sheet, draw, bar)
    left = GAP_PX
    for block in blocks:
        _draw_block(sheet, draw, block, left, top)
        left += block.size[0]
    sheet.save(path, compress_level=3)  # three times as fast as the default of 6, and 10% larger


def _draw_block(sheet: Image.Image, draw: ImageDraw.ImageDraw, block: Block, left: int, top: int) -> None:
    draw.text((left, top), block.heading, INK, font(15))
    top += block.heading_height
    if not block.cells:
        draw.text((left, top), "none", PALE, font(15))
    width, height = CELL_PX
    for index, cell in enumerate(block.cells):
        _draw_cell(sheet, draw, cell, left + index % block.columns * width, top + index // block.columns * height)


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    right = left + 2 * TILE_PX + 2
    for image, start in zip(cell.images, (left, right - TILE_PX), strict=True):
        sheet.paste(Image.fromarray(image), (start, top))
    if cell.is_wrong:
        draw.rectangle((left - 3, top - 3, right + 2, top + TILE_PX + 2), outline=WRONG, width=3)
    for index, line in enumerate(cell.lines):
        color = PALE if index else WRONG if cell.is_wrong else INK
        text = shorten(line, right - left)
        draw.text((left, top + TILE_PX + 4 + index * LINE_PX), text, color, font(TEXT_PX))


def _draw_bar(sheet: Image.Image, draw: ImageDraw.ImageDraw, bar: Array) -> None:
    left, top = sheet.width - 256 - 3 * GAP_PX, GAP_PX
    strip = np.repeat(bar[None], 14, axis=0)
    sheet.paste(Image.fromarray(strip), (left, top))
    draw.rectangle((left - 1, top - 1, left + 256, top + 14), outline=RULE)
    for value, text in ((0, "0"), (0.5, "anomaly 0.5"), (1, "1")):
        draw.text((left + 256 * value, top + 17), text, PALE, font(12), anchor="ma")


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which is part of matplotlib and has Greek letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def shorten(text: str, width: int) -> str:
    """Return the text, cut to a width in pixels with an ellipsis if it is longer."""
    if font(TEXT_PX).getlength(text) <= width:
        return text
    while text and font(TEXT_PX).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def tile(image: Array, mask: Array | None = None) -> Array:
    """Resize an image to a tile, and draw the outline of a mask.

    Args:
        image: (3, S, S) uint8 RGB.
        mask: (S, S) bool, 1 = inside; None for no outline.

    Returns: (TILE_PX, TILE_PX, 3) uint8.
    """
    resample = Image.Resampling.BILINEAR if image.shape[-1] >= TILE_PX else Image.Resampling.NEAREST
    resized = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize((TILE_PX, TILE_PX), resample)
    if mask is None or not mask.any():
        return np.asarray(resized)
    outlined = np.array(resized)
    inside = np.asarray(Image.fromarray(mask).convert("L").resize((TILE_PX, TILE_PX), Image.Resampling.BOX)) > 127
    rim, halo = _grow(inside) & ~inside, _grow(_grow(inside)) & ~_grow(inside)
    outlined[halo] = (255, 255, 255)
    outlined[rim] = (0, 0, 0)
    return outlined


def _grow(mask: Array) -> Array:
    """Dilate a mask (T, T) by one pixel in four directions."""
    padded = np.pad(mask, 1)
    middle = padded[1:-1, 1:-1]
    grown: Array = middle | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown
