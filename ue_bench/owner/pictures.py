"""Read image files as pixels to protect, and write them back.

Colours are protected, transparency and a colour profile are carried over. Everything else that a file holds is left
behind: an embedded preview would be an unprotected copy.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
Format = Literal["png", "jpeg"]
STRIPE_PIXELS = 2**22
SUFFIX: dict[Format, str] = {"png": ".png", "jpeg": ".jpg"}
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Picture:
    """An upright image: ``pixels`` H x W x 3, ``alpha`` H x W, ``profile`` the ICC profile of the pixels.

    ``gray``: whether the file had one channel of colour. ``notes``: what was lost or changed on the way here.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    profile: bytes | None = None
    gray: bool = False
    notes: tuple[str, ...] = ()


def read(content: bytes) -> Picture:
    """Read the image in an encoded file.

    EXIF orientation is applied. Gray becomes three equal channels, 16 bits a channel become 8. CMYK, and gray with a
    profile of its own, become sRGB; the profile of colours that stay as they are is kept.

    Raises UserError, whose message does not name the file, for what cannot be decoded, holds several frames, or has
    values of 32 bits.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return _picture(image)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them to
        lines = str(error).strip().splitlines()
        unknown = not lines or "cannot identify" in lines[0]
        raise UserError("not an image that can be read" if unknown else lines[0], "replace or remove it") from error


def _picture(image: Image.Image) -> Picture:
    from PIL import Image, ImageOps

    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph and its preview, as telephones write them
        raise UserError(f"{frames} frames, not a still image", "store its frames as images of their own")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise UserError("32 bits a value", "store it with 8 or 16 bits a channel")
    notes: list[str] = []
    if image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        notes.append("16 bits a channel became 8")
    turned = image.getexif().get(0x0112, 1) in range(2, 9)
    if turned:
        notes.append("turned upright as its EXIF orientation says")
    profile = image.info.get("icc_profile")
    gray = image.mode in GRAY_MODES
    image = ImageOps.exif_transpose(image) if turned else image  # else it would be a copy
    if image.mode.startswith("I"):
        # Pillow gives 16 bits in both; colours of 16 bits it has cut to 8 itself.
        image = Image.fromarray(np.rint(np.asarray(image, dtype=np.float64) / 257).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        alpha = np.asarray(layer.getchannel("A"))
        image = layer.convert("RGB") if not gray else layer.getchannel("R")
    converted = _converted(image, profile, notes)
    kept = profile if converted is None and profile and profile[16:20] == b"RGB " else None
    if profile and converted is None and kept is None:
        notes.append("its colour profile does not fit and was dropped")
    if converted is None and image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        notes.append(f"{image.mode} became RGB without a profile")
    pixels = _as_array(converted if converted is not None else image)
    return Picture(pixels, alpha, kept, gray and converted is None, tuple(notes))


def _as_array(image: Image.Image) -> Pixels:
    """Return an image as H x W x 3 bytes, a stripe at a time: at once, Pillow holds it several times over."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, STRIPE_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _converted(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image | None:
    """Return CMYK and gray images in sRGB by the profile they come with; None where it is missing or unusable."""
    space = {b"CMYK": "CMYK", b"GRAY": "L"}.get(profile[16:20]) if profile else None
    if profile is None or space is None or image.mode != space:
        return None
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    notes.append(f"{'CMYK' if space == 'CMYK' else 'gray'} became sRGB by its profile")
    return converted


def encode(pixels: Pixels, like: Picture, kind: Format = "png", gray: bool = False) -> bytes:
    """Return ``pixels`` (H x W x 3) as a file, with transparency and profile of ``like``.

    ``gray`` stores one channel where all three are equal. JPEG has quality 95 and full chroma resolution; raises
    UserError when it would have to be transparent.
    """
    from PIL import Image

    one_channel = gray and bool((pixels == pixels[..., :1]).all())
    image = Image.fromarray(pixels[..., 0] if one_channel else pixels)
    stream = io.BytesIO()
    if kind == "jpeg":
        if like.alpha is not None:
            raise UserError("transparent, which JPEG cannot be", "use --format png")
        image.save(stream, "JPEG", quality=95, subsampling=0, icc_profile=like.profile)
        return stream.getvalue()
    if like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
    image.save(stream, "PNG", icc_profile=like.profile)
    return stream.getvalue()


def digest(pixels: Pixels) -> bytes:
    """Return 16 bytes that tell one H x W x 3 image from another."""
    checksum = hashlib.sha256(repr(pixels.shape).encode())
    checksum.update(np.ascontiguousarray(pixels).data)
    return checksum.digest()[:16]
