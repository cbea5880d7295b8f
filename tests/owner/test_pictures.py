from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ue_bench.errors import UserError
from ue_bench.owner import pictures

from .helpers import encoded, random_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gray_profile(gamma: float) -> bytes:
    """A minimal ICC profile of one channel with a power curve: ICC.1:2001-04, header and three tags."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78)
    name += bytes(-len(name) % 4)
    offset, table = 128 + 4 + 3 * 12, b""
    for tag, data in ((b"desc", name), (b"wtpt", white), (b"kTRC", curve)):
        table += tag + struct.pack(">2I", offset, len(data))
        offset += len(data)
    header = struct.pack(">I4sI4s4s4s", offset, bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12)
    header += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I", 3) + table + name + white + curve


def test_rgb_comes_back_as_it_is() -> None:
    pixels = random_image()
    found = pictures.read(encoded(Image.fromarray(pixels)))
    assert np.array_equal(found.pixels, pixels)
    assert (found.alpha, found.profile, found.gray, found.notes) == (None, None, False, ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int) -> None:
    pixels = random_image((6, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pictures.read(encoded(Image.fromarray(pixels), exif=exif))
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).transpose(1, 0, 2), 8: np.rot90(pixels),
    }  # fmt: skip
    assert np.array_equal(found.pixels, turned[orientation])
    assert bool(found.notes) == (orientation > 1)
    again = pictures.read(pictures.encode(found.pixels, found))
    assert np.array_equal(again.pixels, found.pixels)
    assert again.notes == ()


def test_nothing_else_of_exif_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret"
    found = pictures.read(encoded(Image.fromarray(random_image()), "JPEG", exif=exif, comment=b"secret"))
    assert b"secret" not in pictures.encode(found.pixels, found)


def test_transparency_is_kept_beside_the_colours() -> None:
    layered = random_image(channels=4)
    found = pictures.read(encoded(Image.fromarray(layered)))
    assert np.array_equal(found.pixels, layered[..., :3])
    again = np.asarray(Image.open(io.BytesIO(pictures.encode(found.pixels, found))))
    assert np.array_equal(again, layered)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_gray_becomes_three_equal_channels_and_gray_again(mode: str) -> None:
    gray = random_image(channels=1)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode == "1":
        gray = np.where(gray > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(gray > 127)
    else:
        image = Image.fromarray(gray).convert(mode)
    found = pictures.read(encoded(image))
    assert (found.pixels == gray[..., None]).all()
    assert found.gray
    assert (found.alpha is not None) == (mode == "LA")
    stored = pictures.encode(found.pixels, found, gray=True)
    with Image.open(io.BytesIO(stored)) as back:
        assert back.mode == ("LA" if mode == "LA" else "L")
        assert np.array_equal(np.asarray(back.getchannel(0)), gray)


def test_gray_is_not_forced_on_colours() -> None:
    pixels = random_image()
    stored = pictures.encode(pixels, pictures.Picture(pixels), gray=True)
    assert np.array_equal(pictures.read(stored).pixels, pixels)


def test_16_bits_are_rounded_to_8_and_said_so() -> None:
    wide = np.array([[0, 128, 129, 257, 65535, 65406]], np.uint16)  # 128.5 is half a level
    found = pictures.read(encoded(Image.fromarray(wide)))
    assert found.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254]
    assert found.notes == ("16 bits a channel became 8",)


def test_colours_of_16_bits_are_said_so() -> None:
    raw = b"".join(b"\0" + bytes(range(12)) for _ in range(2))  # 2 x 2 px, 6 bytes a pixel

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    found = pictures.read(png + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
    assert found.pixels[0, 0].tolist() == [0, 2, 4]
    assert found.notes == ("16 bits a channel became 8",)


def test_a_palette_becomes_colours_and_its_transparency_alpha() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "P")
    image.putpalette([value for k in range(12) for value in (k, 2 * k, 255 - k)])
    found = pictures.read(encoded(image, "GIF", transparency=5))
    assert found.pixels[1, 0].tolist() == [4, 8, 251]
    assert found.alpha is not None
    assert np.flatnonzero(found.alpha.ravel() == 0).tolist() == [5]


def test_profile_of_rgb_is_kept_and_pixels_are_not_touched() -> None:
    pixels = random_image()
    found = pictures.read(encoded(Image.fromarray(pixels), icc_profile=SRGB))
    assert found.profile == SRGB
    assert np.array_equal(found.pixels, pixels)
    for kind in ("png", "jpeg"):
        with Image.open(io.BytesIO(pictures.encode(pixels, found, kind))) as back:
            assert back.info["icc_profile"] == SRGB


def test_gray_with_a_profile_becomes_srgb_by_it() -> None:
    level = np.full((4, 4), 128, np.uint8)
    found = pictures.read(encoded(Image.fromarray(level), icc_profile=gray_profile(1.0)))
    # Linear light 0.502 is 188 in sRGB (IEC 61966-2-1).
    assert np.abs(found.pixels.astype(int) - 188).max() <= 1
    assert found.profile is None
    assert found.notes == ("gray became sRGB by its profile",)
    assert not found.gray


def test_a_profile_that_does_not_fit_is_dropped() -> None:
    found = pictures.read(encoded(Image.fromarray(random_image()), icc_profile=gray_profile(1.0)))
    assert found.profile is None
    assert found.notes == ("its colour profile does not fit and was dropped",)


def test_cmyk_becomes_rgb() -> None:
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[..., 1] = 255  # magenta
    found = pictures.read(encoded(Image.fromarray(ink, "CMYK"), "TIFF"))
    assert found.pixels[0, 0].tolist() == [255, 0, 255]
    assert found.notes == ("CMYK became RGB without a profile",)


def frames(kind: str) -> bytes:
    first, *rest = [Image.fromarray(random_image(seed=k)) for k in range(3)]
    return encoded(first, kind, save_all=True, append_images=rest)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (frames("GIF"), "3 frames"),
        (frames("PNG"), "3 frames"),
        (frames("WEBP"), "3 frames"),
        (frames("TIFF"), "3 frames"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32 bits"),
        (encoded(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "32 bits"),
        (b"", "not an image"),
        (b"plain text", "not an image"),
        (encoded(Image.fromarray(random_image((50, 50))))[:2000], "truncated"),
        (encoded(Image.fromarray(random_image((50, 50))), "JPEG")[:900], "truncated"),
    ],
    ids=["gif", "apng", "webp", "tiff", "float", "int", "empty", "text", "half a png", "half a jpeg"],
)
def test_what_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        pictures.read(content)
    assert reason in refused.value.message
    assert refused.value.hint


def test_a_photograph_with_its_preview_is_one_image() -> None:
    first, second = (Image.fromarray(random_image((16, 16), seed)) for seed in (0, 1))
    found = pictures.read(encoded(first, "MPO", save_all=True, append_images=[second]))
    assert found.pixels.shape == (16, 16, 3)


def test_jpeg_cannot_be_transparent() -> None:
    layered = pictures.read(encoded(Image.fromarray(random_image(channels=4))))
    with pytest.raises(UserError, match="transparent"):
        pictures.encode(layered.pixels, layered, "jpeg")


def test_digests_tell_images_and_shapes_apart() -> None:
    pixels = random_image((4, 6))
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    views = [pixels, other, pixels.reshape(6, 4, 3)]
    assert len({pictures.digest(v) for v in views}) == 3
    assert pictures.digest(pixels[::1]) == pictures.digest(np.asfortranarray(pixels))
