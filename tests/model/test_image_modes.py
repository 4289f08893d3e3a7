"""Every mode of Pillow in RGB: levels by their range, colours as they are, nothing black by mistake."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms

from rvelens.model.prompts import IMAGE_FORMATS, load_image

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=4)
DEEP = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}


def grey(image):
    """What an image becomes, with its three channels equal: [height width]."""
    rgb = load_image(image)
    assert rgb.mode == "RGB"
    levels = np.asarray(rgb).astype(int)
    assert (levels == levels[..., :1]).all()
    return levels[..., 0]


def colours(image):
    rgb = load_image(image)
    assert rgb.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(rgb).reshape(-1, 3).tolist()]


def reference(levels, mode):
    """The rule, pixel by pixel; None where it refuses."""
    flat = [level.item() for row in levels for level in row]
    if mode == "I" and all(0 <= level <= 255 for level in flat):
        return levels.astype(int)
    if mode == "I" and all(0 <= level <= 65535 for level in flat):
        return np.array([[level.item() // 256 for level in row] for row in levels])
    if mode == "F" and all(0 <= level <= 1 for level in flat):
        return np.array(
            [[round(float(level * np.float32(255))) for level in row] for row in levels]
        )
    if mode == "F" and all(0 <= level <= 255 for level in flat):
        return np.array([[round(level.item()) for level in row] for row in levels])
    return None


def integers(low, high):
    return arrays.arrays(np.int32, SHAPES, elements=st.integers(low, high))


def floats(low, high):
    return arrays.arrays(np.float32, SHAPES, elements=st.floats(low, high, width=32))


@settings(deadline=None)
@given(integers(0, 255) | integers(0, 65535) | integers(-300, 300) | integers(0, 2**31 - 1))
def test_mode_i_is_read_by_the_range_of_its_levels(levels):
    check(levels, "I")


@settings(deadline=None)
@given(
    floats(0, 1)
    | floats(0, 255)
    | floats(-1, 1)
    | floats(0, 300)
    | arrays.arrays(np.float32, SHAPES, elements=st.floats(width=32))
)
def test_mode_f_is_read_by_the_range_of_its_levels(levels):
    check(levels, "F")


def check(levels, mode):
    image = Image.fromarray(levels)
    assert image.mode == mode
    wanted = reference(levels, mode)
    if wanted is None:
        with pytest.raises(ValueError, match=f"is of mode {mode} with levels from"):
            load_image(image)
    else:
        assert (grey(image) == wanted).all()


@pytest.mark.parametrize("mode", DEEP)
@settings(deadline=None)
@given(levels=arrays.arrays(np.uint16, SHAPES))
def test_16_bit_modes_are_read_by_their_upper_byte(mode, levels):
    data = levels.astype(DEEP[mode]).tobytes()
    image = Image.frombytes(mode, levels.shape[::-1], data)
    assert (grey(image) == levels // 256).all()


@pytest.mark.parametrize(("dtype", "top"), [(np.int32, 255), (np.float32, 1), (np.float32, 255)])
def test_a_drawing_is_the_same_in_every_mode_that_holds_it(dtype, top):
    byte = np.arange(256, dtype=np.uint8).reshape(16, 16)
    drawn = (byte / dtype(255) * dtype(top)).astype(dtype)
    assert (grey(Image.fromarray(drawn)) == byte).all()
    assert (grey(Image.fromarray(byte.astype(np.uint16) * 257)) == byte).all()


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (np.array([[-1, 3]], np.int32), "mode I with levels from -1 to 3"),
        (np.array([[0, 65536]], np.int32), "mode I with levels from 0 to 65536"),
        (np.array([[-0.5, 1]], np.float32), "mode F with levels from -0.5 to 1.0"),
        (np.array([[0, 255.5]], np.float32), "mode F with levels from 0.0 to 255.5"),
        (np.array([[0, np.nan]], np.float32), "mode F with levels from nan to nan"),
        (np.array([[0, np.inf]], np.float32), "mode F with levels from 0.0 to inf"),
    ],
)
def test_other_levels_are_refused_with_what_to_do(levels, said, tmp_path):
    ranges = "0 to 255 or 0 to 65535" if levels.dtype == np.int32 else "0 to 1 or 0 to 255"
    to_do = "scale them to such a range, or give the image in RGB."
    rest = f"{said}: expected all within {ranges}; {to_do}"
    with pytest.raises(ValueError, match=f"^{re.escape(f'an image is of {rest}')}$"):
        load_image(Image.fromarray(levels))
    path = tmp_path / "levels.tif"
    Image.fromarray(levels).save(path)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path} is of {rest}')}$"):
        load_image(path)


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize(("dtype", "half"), [(np.int32, 128), (np.float32, 0.5)])
def test_a_file_is_read_as_the_image_that_it_holds(tmp_path, upright, dtype, half):
    Image.fromarray(np.array([[0, half, half]], dtype)).save(tmp_path / "levels.tif")
    loaded = load_image(tmp_path / "levels.tif", upright=upright)
    assert colours(loaded) == [(0, 0, 0), (128, 128, 128), (128, 128, 128)]


@pytest.mark.parametrize(("dtype", "half"), [(np.int32, 128), (np.float32, 0.5)])
def test_levels_are_turned_as_colours_are(dtype, half):
    image = Image.fromarray(np.array([[0, half]], dtype))
    image.getexif()[274] = 6  # A quarter turn.
    assert grey(image).tolist() == [[0], [128]]
    assert load_image(image, upright=False).size == (2, 1)


@pytest.mark.parametrize(("top", "levels"), [(65535, [0, 40000, 65535]), (1000, [0, 611, 1000])])
def test_a_16_bit_pgm_is_read_by_its_upper_byte(top, levels):
    file = BytesIO(b"P5 3 1 %d\n" % top + np.array(levels, ">u2").tobytes())
    with Image.open(file) as opened:
        assert opened.mode == "I"
        assert grey(opened).tolist() == [[0, 156, 255]]


@pytest.mark.parametrize("mode", ["RGB", "I", "F"])
def test_images_without_pixels_are_refused(mode):
    with pytest.raises(ValueError, match="an image has 0 x 3 pixels: expected 1 to 32768 on each"):
        load_image(Image.new(mode, (0, 3)))


RED, GREEN, DARK = (255, 0, 0), (0, 255, 0), (10, 20, 30)


def picture(mode="RGB"):
    """Three pixels; with alpha: the first is transparent, the second half so."""
    image = Image.new("RGBA", (3, 1))
    for x, colour in enumerate(((*RED, 0), (*GREEN, 128), (*DARK, 255))):
        image.putpixel((x, 0), colour)
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("RGB", [RED, GREEN, DARK]),
        ("RGBX", [RED, GREEN, DARK]),
        ("RGBA", [RED, GREEN, DARK]),  # What is transparent shows the colour that it hides.
        ("RGBa", [(0, 0, 0), GREEN, DARK]),  # Premultiplied, a transparent pixel has no colour.
        ("L", [(76, 76, 76), (150, 150, 150), (18, 18, 18)]),
        ("LA", [(76, 76, 76), (150, 150, 150), (18, 18, 18)]),
        ("CMYK", [RED, GREEN, DARK]),
        ("YCbCr", [(254, 0, 0), (0, 254, 0), (9, 20, 28)]),
        ("HSV", [RED, GREEN, DARK]),
    ],
)
def test_other_modes_keep_their_colours_and_lose_their_alpha(mode, wanted):
    assert colours(picture(mode)) == wanted


def test_premultiplied_grey_is_read():
    levels = [level for level, _, _ in colours(picture("LA").convert("La"))]
    assert levels[0] == 0
    assert levels[1:] == pytest.approx([150, 18], abs=1)


def test_black_and_white_is_black_and_white():
    assert grey(Image.fromarray(np.array([[True, False]]))).tolist() == [[255, 0]]


def test_lab_is_converted_and_not_reinterpreted():
    to_lab = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    lab = ImageCms.profileToProfile(picture("RGB"), *to_lab, outputMode="LAB")
    assert lab.mode == "LAB"
    assert np.abs(np.subtract(colours(lab), [RED, GREEN, DARK])).max() < 16


def palette():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([*RED, *GREEN, *DARK])
    return image


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_a_palette_gives_its_colours_without_a_warning(transparency):
    file, known = BytesIO(), {} if transparency is None else {"transparency": transparency}
    palette().save(file, "PNG", **known)
    with Image.open(file) as opened, warnings.catch_warnings(action="error"):
        assert opened.mode == "P"
        assert ("transparency" in opened.info) == bool(known)
        assert colours(opened) == [RED, GREEN, DARK]


def test_a_palette_with_alpha_gives_its_colours():
    with_alpha = palette().convert("PA")
    assert with_alpha.mode == "PA"
    assert colours(with_alpha) == [RED, GREEN, DARK]


def png(levels, colour_type):
    """A PNG of 16 bits a channel, which Pillow does not write: levels are [height width channel]."""
    height, width, _ = levels.shape

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@settings(deadline=None)
@given(data=st.data())
def test_a_16_bit_png_is_read_by_its_upper_byte(colour_type, channels, data):
    levels = data.draw(arrays.arrays(np.uint16, (2, 3, channels)))
    shown = levels[..., :1] if channels < 3 else levels[..., :3]
    with Image.open(png(levels, colour_type)) as opened:
        assert (np.asarray(load_image(opened)) == shown // 256).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_shown_or_the_one_it_stands_at(kind, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, DARK)]
    more = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / f"moving.{kind.lower()}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **more)
    assert set(colours(path)) == {RED}
    with Image.open(path) as opened:
        opened.seek(1)
        assert set(colours(opened)) == {GREEN}


def test_an_image_that_is_given_stays_as_it_was():
    image = Image.fromarray(np.array([[0, 1, 255]], np.int32))
    load_image(image)
    assert image.mode == "I"
    assert image.tobytes() == np.array([[0, 1, 255]], np.int32).tobytes()


@pytest.mark.parametrize("ending", ["eps", "ico", "tga", "pcx", "sgi"])
def test_formats_outside_of_the_list_are_not_opened(tmp_path, monkeypatch, ending):
    """A file is told by its content: Pillow would run Ghostscript on EPS."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a: pytest.fail("was run"))
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{ending}")
    path = (tmp_path / f"a.{ending}").rename(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"a\.png cannot be read as an image .*: expected PNG, JPEG"
    ):
        load_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_of_the_list_are_opened(tmp_path, kind):
    assert kind in IMAGE_FORMATS
    Image.new("RGB", (8, 8)).save(tmp_path / "picture", format=kind)
    assert load_image(tmp_path / "picture").size == (8, 8)
