from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from las_tune.data.category import index_category
from las_tune.data.images import (
    decode_image,
    decode_images,
    decode_mask,
    decode_masks,
    describe_image,
)
from las_tune.errors import DataError

from .conftest import MakeCategory, save_image, save_mask

REPOSITORY = Path(__file__).parents[2]


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_rgb_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    decoded = decode_image(saved(tmp_path / "a.png", Image.fromarray(pixels)), 9)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_resize_is_antialiased(tmp_path: Path) -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    decoded = decode_image(saved(tmp_path / "a.png", Image.fromarray(checkers)), 8)
    assert decoded.shape == (3, 8, 8)
    assert np.abs(decoded.astype(int) - 127).max() <= 3


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    decoded = decode_image(path, 8)
    assert (decoded[:, 0] == 255).all() and (decoded[:, -1] == 0).all()
    assert describe_image(path) == ((8, 16), "PNG RGB")
    mask = save_mask(tmp_path / "mask.png", (8, 16))
    assert decode_mask(mask, 8, path).shape == (8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_all_color_modes_are_decoded(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "YCbCr" else "tif"  # Pillow before 13 cannot read its own YCbCr TIFF files
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (4, 4), "white").convert(mode))
    assert (decode_image(path, 4) >= 254).all()


def test_transparent_images_are_composited_on_black(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    rgba.paste((200, 100, 50, 255), (0, 0, 2, 4))
    half = Image.new("LA", (4, 4), (200, 128))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode_image(saved(tmp_path / "a.png", rgba), 4)
    assert (decoded[:, :, :2] == np.array([200, 100, 50])[:, None, None]).all() and (decoded[:, :, 2:] == 0).all()
    assert np.abs(decode_image(saved(tmp_path / "b.png", half), 4).astype(int) - 100).max() <= 1
    assert (decode_image(saved(tmp_path / "c.png", palette, transparency=1), 4) == 0).all()
    assert (decode_image(saved(tmp_path / "d.png", palette, transparency=bytes([255, 255])), 4)[0] == 40).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_scaled(tmp_path: Path, suffix: str) -> None:
    gray = np.array([[0, 257], [128 * 257 + 128, 65535]], np.uint16)
    decoded = decode_image(saved(tmp_path / f"a.{suffix}", Image.fromarray(gray)), 2)
    np.testing.assert_array_equal(decoded[0], [[0, 1], [128, 255]])


def test_32_bit_and_big_endian_gray_are_scaled(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[0, 257], [25700, 65535]], np.int32))
    big = Image.frombytes("I;16B", (2, 1), np.array([25700, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(decode_image(saved(tmp_path / "a.tif", gray), 2)[0], [[0, 1], [100, 255]])
    np.testing.assert_array_equal(decode_image(saved(tmp_path / "b.tif", big), 2)[2, 0], [100, 255])


def test_first_frame_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("white", "black")]
    path = saved(tmp_path / "a.tif", frames[0], save_all=True, append_images=frames[1:])
    assert (decode_image(path, 4) == 255).all()


def error_message(path: Path, reason: str) -> str:
    return f"Cannot read image {path}: {reason}. Replace the file, or use --skip-broken to leave out broken images."


def test_gray_values_without_a_defined_white_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        decode_image(saved(tmp_path / "a.tif", Image.new("F", (4, 4), 0.5)), 4)
    reason = "float gray values have no defined white level; save the image with 8 or 16 bits"
    assert str(error.value) == error_message(tmp_path / "a.tif", reason)
    with pytest.raises(DataError, match="gray values beyond 16 bits have no defined white level"):
        decode_image(saved(tmp_path / "b.tif", Image.new("I", (4, 4), 70000)), 4)


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = save_image(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    broken = {"empty.png": b"", "text.png": b"not an image", "cut.png": whole[: len(whole) // 2]}
    jpeg = saved(tmp_path / "whole.jpg", Image.open(tmp_path / "whole.png")).read_bytes()
    broken |= {"cut.jpg": jpeg[: len(jpeg) // 2], "head.png": whole[:20]}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as error:
            decode_image(tmp_path / name, 8)
        text = str(error.value)
        assert text.startswith(f"Cannot read image {tmp_path / name}: ")
        assert text.endswith("--skip-broken to leave out broken images.") and text.count(name) == 1 and "\n" not in text


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        decode_image(tmp_path / "absent.png", 8)


def test_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "a.png", size=(16, 16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow rejects more than twice this
    with pytest.raises(DataError, match="exceeds limit of 200 pixels"):
        decode_image(path, 4)


def test_large_image_is_read_without_a_warning(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", size=(16, 16))
    program = f"""
from pathlib import Path
from PIL import Image
from las_tune.data.category import ImageItem
from las_tune.data.images import decode_images
Image.MAX_IMAGE_PIXELS = 200  # Pillow warns above this
print(decode_images([ImageItem(Path({str(path)!r}), "good")] * 20, 4).images.shape)
"""
    command = [sys.executable, "-W", "always", "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(20, 3, 4, 4)\n", "")


def test_decoding_keeps_the_warning_filters(make_category: MakeCategory) -> None:
    train = index_category(make_category(train=2), "part").train
    before = list(warnings.filters)
    decode_images(train, 8)
    assert list(warnings.filters) == before


def test_masks_of_all_formats_are_decoded(tmp_path: Path) -> None:
    image = save_image(tmp_path / "image.png", size=(8, 8))
    left = np.zeros((8, 8), np.uint8)
    left[:, :4] = 1
    palette = Image.fromarray(left, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    rgba = np.dstack([left * 255, left * 0, left * 0, left * 0 + 255]).astype(np.uint8)
    masks = {
        "zero_one.png": Image.fromarray(left),
        "white.png": Image.fromarray(left * 255),
        "labels.png": Image.fromarray(left + left * (np.arange(8)[:, None] % 3).astype(np.uint8)),
        "bits.png": Image.fromarray(left * 255).convert("1"),
        "wide_labels.png": Image.fromarray(left.astype(np.uint16)),
        "shares.tif": Image.fromarray(left.astype(np.float32)),
        "wide.png": Image.fromarray(left.astype(np.uint16) * 65535),
        "palette.png": palette,
        "rgba.png": Image.fromarray(rgba),
        "red.png": Image.fromarray(np.where(left[..., None] > 0, rgba, 0)),
    }
    for name, content in masks.items():
        mask = decode_mask(saved(tmp_path / name, content), 8, image)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, left > 0, err_msg=name)


def test_noise_of_a_jpeg_mask_is_not_a_defect(tmp_path: Path) -> None:
    disc = np.hypot(*(np.indices((64, 64)) - 32)) < 13
    path = saved(tmp_path / "mask.jpg", Image.fromarray((disc * 255).astype(np.uint8)), quality=70)
    assert (np.asarray(Image.open(path))[~disc] > 0).any()
    image = save_image(tmp_path / "image.png", size=(64, 64))
    assert (decode_mask(path, 64, image) != disc).mean() < 0.01
    empty = saved(tmp_path / "empty.jpg", Image.new("L", (64, 64)))
    assert not decode_mask(empty, 64, image).any()


def test_resized_mask_pixel_needs_half_of_its_area(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4), np.uint8)
    pixels[:2, 0] = pixels[2, 2] = 255
    image = save_image(tmp_path / "image.png", size=(4, 4))
    mask = decode_mask(saved(tmp_path / "mask.png", Image.fromarray(pixels)), 2, image)
    np.testing.assert_array_equal(mask, [[True, False], [False, False]])


@pytest.mark.parametrize("side", [7, 64, 100, 288])
def test_single_pixel_survives_every_resize(tmp_path: Path, side: int) -> None:
    image = save_image(tmp_path / "image.png", size=(101, 77))
    generator = np.random.default_rng(0)
    for _ in range(20):
        pixels = np.zeros((77, 101), np.uint8)
        pixels[generator.integers(77), generator.integers(101)] = 255
        assert decode_mask(saved(tmp_path / "mask.png", Image.fromarray(pixels)), side, image).any()


def test_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    image, mask = save_image(tmp_path / "a.png", size=(12, 8)), save_mask(tmp_path / "m.png", (8, 12))
    with pytest.raises(DataError) as error:
        decode_mask(mask, 8, image)
    assert str(error.value) == (
        f"Mask {mask} has 8x12 pixels, but image {image} has 12x8. Save the mask with the size of its image."
    )


def test_broken_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        decode_mask(tmp_path / "mask.png", 8, save_image(tmp_path / "a.png"))
    assert str(error.value).startswith(f"Cannot read mask {tmp_path / 'mask.png'}: ")
    assert str(error.value).endswith("Replace the file, or remove it to run without pixel metrics.")


def test_decode_images_keeps_the_order(make_category: MakeCategory) -> None:
    category = index_category(make_category(train=12), "part")
    calls: list[tuple[str, int, int]] = []
    decoded = decode_images(category.train, 8, progress=lambda *call: calls.append(call))
    assert decoded.images.shape == (12, 3, 8, 8) and decoded.kept == category.train and decoded.skipped == ()
    assert calls == [("reading images", done, 12) for done in range(1, 13)]
    for image, pixels in zip(category.train, decoded.images, strict=True):
        np.testing.assert_array_equal(pixels, decode_image(image.path, 8))


def test_broken_images_raise_or_are_skipped(make_category: MakeCategory) -> None:
    root = make_category(train=5)
    for index in (1, 3):
        (root / f"part/train/good/00{index}.png").write_bytes(b"")
    train = index_category(root, "part").train
    with pytest.raises(DataError, match=r"001\.png"):
        decode_images(train, 8)
    decoded = decode_images(train, 8, skip_broken=True)
    assert [image.path.name for image in decoded.kept] == ["000.png", "002.png", "004.png"]
    assert decoded.images.shape == (3, 3, 8, 8) and len(decoded.skipped) == 2 and "003.png" in decoded.skipped[1]
    np.testing.assert_array_equal(decoded.images[2], decode_image(train[4].path, 8))


def test_broken_images_alone_are_an_error(make_category: MakeCategory) -> None:
    root = make_category(train=1)
    (root / "part/train/good/000.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        decode_images(index_category(root, "part").train, 8, skip_broken=True)
    assert str(error.value).startswith("No image could be read (1 broken). First error: Cannot read image")


def test_empty_list_decodes_to_an_empty_array() -> None:
    assert decode_images((), 8).images.shape == (0, 3, 8, 8)


def test_good_images_decode_to_empty_masks(make_category: MakeCategory) -> None:
    category = index_category(make_category(good=2, rust=1), "part")
    masks = decode_masks(category.test, 4)
    assert masks.shape == (3, 4, 4) and not masks[:2].any()
    np.testing.assert_array_equal(masks[2], [[True, True, False, False]] * 4)
