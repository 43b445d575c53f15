"""Sheets of pairs of images with text under each, composed with Pillow: milliseconds, where axes take seconds.

White ground and dark text whatever the theme of the page around them; what is wrong is framed and said in words, too.
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
"""Width and height of a cell, with the gap after it."""
INK, PALE, RULE = "#1a1a1a", "#5f5f5f", "#c8c8c8"
WRONG = "#D55E00"
"""Okabe and Ito's vermillion."""


@dataclass(frozen=True)
class Cell:
    """Two images side by side, and what is said under them.

    images  each (TILE_PX, TILE_PX, 3) uint8 RGB
    lines     the first is the stronger
    is_wrong  framed in vermillion
    """

    images: tuple[Array, Array]
    lines: tuple[str, str]
    is_wrong: bool = False


@dataclass(frozen=True)
class Block:
    """A heading, where it has one, over rows of cells; "none" where there are none."""

    heading: str
    cells: Sequence[Cell]
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        rows = -(-len(self.cells) // self.columns)
        return self.columns * CELL_PX[0], self.head + (rows * CELL_PX[1] if rows else 2 * LINE_PX)

    @property
    def head(self) -> int:
        """Height of the heading."""
        return LINE_PX + GAP_PX if self.heading else 0


def write_sheet(path: Path, title: str, note: str, blocks: Sequence[Block], bar: Array | None = None) -> None:
    """Write blocks side by side under a title.

    Args:
        path: the PNG.
        title: large, on top.
        note: one line under it: how to read the sheet.
        blocks: from left to right.
        bar: (256, 3) uint8, the colors of a scale from 0 to 1, drawn in the upper right; None without one.
    """
    head = 30 + LINE_PX + 2 * GAP_PX
    asked = int(max(font(20).getlength(title) + (300 if bar is not None else 0), font(13).getlength(note)))
    width = max(sum(block.size[0] for block in blocks) + GAP_PX, asked + 2 * GAP_PX)
    sheet = Image.new("RGB", (width, head + max(block.size[1] for block in blocks)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX), title, INK, font(20))
    draw.text((GAP_PX, GAP_PX + 28), note, PALE, font(13))
    if bar is not None:
        _draw_bar(sheet, draw, bar)
    left = GAP_PX
    for block in blocks:
        _draw_block(sheet, draw, block, left, head)
        left += block.size[0]
    sheet.save(path, compress_level=3)  # a third of the time of the usual 6, a tenth larger


def _draw_block(sheet: Image.Image, draw: ImageDraw.ImageDraw, block: Block, left: int, top: int) -> None:
    draw.text((left, top), block.heading, INK, font(15))
    top += block.head
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
        strong = WRONG if cell.is_wrong else INK
        fits = shorten(line, right - left)
        draw.text((left, top + TILE_PX + 4 + index * LINE_PX), fits, PALE if index else strong, font(TEXT_PX))


def _draw_bar(sheet: Image.Image, draw: ImageDraw.ImageDraw, bar: Array) -> None:
    left, top = sheet.width - 256 - 3 * GAP_PX, GAP_PX
    strip = np.repeat(bar[None], 14, axis=0)
    sheet.paste(Image.fromarray(strip), (left, top))
    draw.rectangle((left - 1, top - 1, left + 256, top + 14), outline=RULE)
    for share, text in ((0, "0"), (0.5, "heat 0.5"), (1, "1")):
        draw.text((left + 256 * share, top + 17), text, PALE, font(12), anchor="ma")


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: it has α and β."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def shorten(text: str, width: int) -> str:
    """The text, or as much of it as fits into a width, and an ellipsis."""
    if font(TEXT_PX).getlength(text) <= width:
        return text
    while text and font(TEXT_PX).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def tile(image: Array, mask: Array | None = None) -> Array:
    """An image as a tile, with the outline of a mask.

    Args:
        image: (3, S, S) uint8 RGB.
        mask: (S, S) bool, 1 = inside; None without one.

    Returns: (TILE_PX, TILE_PX, 3) uint8.
    """
    resample = Image.Resampling.BILINEAR if image.shape[-1] >= TILE_PX else Image.Resampling.NEAREST
    resized = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize((TILE_PX, TILE_PX), resample)
    if mask is None or not mask.any():
        return np.asarray(resized)
    shown = np.array(resized)
    inside = np.asarray(Image.fromarray(mask).convert("L").resize((TILE_PX, TILE_PX), Image.Resampling.BOX)) > 127
    rim, halo = _grow(inside) & ~inside, _grow(_grow(inside)) & ~_grow(inside)
    shown[halo] = (255, 255, 255)
    shown[rim] = (0, 0, 0)
    return shown


def _grow(mask: Array) -> Array:
    """A mask (T, T) and its neighbors to four sides."""
    padded = np.pad(mask, 1)
    middle = padded[1:-1, 1:-1]
    grown: Array = middle | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown
