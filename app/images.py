"""What is done to a generated picture: a mark that is seen, and one label in the file (GB 45438-2025). Owns the one door to Pillow.

Law: the mark is the size that the standard asks for, in the corner that is the lower right one to who looks at it, and can be read on any
ground; the file holds one label, and an earlier one gives way. Nothing is decoded before its size is known, and no message holds a value.

The rest of the picture and what else is said of it stay. Where they cannot: colours of a palette and a single transparent colour become
channels, 16 bits of a colour PNG become 8 (of a grey one they stay), a JPEG is written again with the tables it was written with (off by
a step or two), a lossy WebP does not say how it was written and is written at quality 95; a manifest that binds the pixels, thumbnails
and the further pictures of a JPEG go.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app import exif, strictjson, xmp
from app.errors import RequestError, UpstreamError
from app.labels import FIELDS, undrawable
from app.picture import Picture, extended, join, split

LONGEST = 2048
"""Characters of a field at most."""
PIXELS = 64_000_000
"""Of a picture at most: a decoder would take 4 bytes for each."""
WORDS = 64
"""Characters of a mark at most: more would not fit a narrow picture."""

_CAPITAL = 0.733
"""Height of the font's capitals, its size being 1; those of Han characters are higher."""
_SHARE, _LEAST = 0.05, 10
"""Height of the mark's characters: of the shorter side, and in pixels where there is room for them."""
_PLATE = 0.6
"""How much of the ground the plate hides: white on it keeps a contrast of 5.7 to 1 where the ground is white."""
_PIECES = re.compile(r"[!-~]+ *|[^!-~]")
_VALUE = re.compile(rf"[ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]{{0,{LONGEST}}}")
"""What a field may hold: characters that XML can carry."""
_LABEL = 6 * LONGEST * len(FIELDS)

_TURNS: dict[int, tuple[Image.Transpose | None, bool, bool]] = {
    1: (None, True, True),
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True),
    3: (Image.Transpose.ROTATE_180, False, False),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, True, False),
    5: (Image.Transpose.TRANSPOSE, True, True),
    6: (Image.Transpose.ROTATE_90, True, False),
    7: (Image.Transpose.TRANSVERSE, False, False),
    8: (Image.Transpose.ROTATE_270, False, True),
}
"""By EXIF's orientation: how the mark is turned for the file, and whether its corner is at the right and at the bottom there."""
_BLACK = {"CMYK": (0, 0, 0, 255)}
_WHITE = {"CMYK": (0, 0, 0, 0), "I;16": (65535,)}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, struct.error)
"""What Pillow raises for bytes that are no picture."""


def drawable(words: str) -> bool:
    """Whether a mark can say it."""
    return bool(words.strip()) and len(words) <= WORDS and not undrawable(words)


def read(raw: bytes) -> dict[str, str] | None:
    """The fields of the label that a picture's file holds, wherever it stands. None without one, and for what cannot be read."""
    try:
        found = _labels(split(raw))
    except ValueError:
        return None
    return next((fields for text in found if (fields := _fields(text))), None)


def bound(raw: bytes) -> bool:
    """Whether a C2PA manifest binds the picture as it is: no mark leaves it valid."""
    try:
        return split(raw).bound
    except ValueError:
        return False


def marked(raw: bytes, aigc: Mapping[str, str], words: str) -> bytes:
    """The picture with `words` in its lower right corner and `aigc`, all of FIELDS, as its one label.

    Raises UpstreamError for what is no still picture of a size that can be handled, ValueError for words or fields that cannot be written.
    """
    if not drawable(words):
        missing = next((f": it has no {ch!r}" for ch in undrawable(words)), "")
        raise ValueError(f"the mark's font cannot write this{missing}; 1 to {WORDS} characters it has are needed")
    label = _written(aigc)
    try:
        picture = split(raw)
    except ValueError:
        raise _unusable("no PNG, JPEG or WebP picture that can be read") from None
    if picture.moving:
        raise _unusable("a moving picture")
    if picture.size[0] * picture.size[1] > PIXELS:
        raise _unusable(f"a picture of more than {PIXELS} pixels")
    image = _decoded(picture)
    block = picture.exif[0] if picture.exif else b""
    _draw(image, words, exif.orientation(block))
    if any("AIGC" in value for value in xmp.values(extended(picture))):
        picture.extension.clear()
    packet = xmp.with_value(picture.xmp[0] if picture.xmp else None, label, picture.room)
    return join(picture, _encoded(image, picture), packet, exif.without(block, "AIGC"))


def _unusable(what: str) -> UpstreamError:
    return UpstreamError(f"the model's server sent {what}", code="upstream_protocol_error")


# ---- the label


def _labels(picture: Picture) -> Iterator[str]:
    """What may be a label, the likeliest first."""
    for packet in [*picture.xmp, extended(picture)]:
        yield from xmp.values(packet)
    yield from picture.notes
    for block in picture.exif:
        yield from exif.comments(block)


def _fields(text: str) -> dict[str, str] | None:
    """The fields of a label, with or without the name around them. A lone Label is one: in practice no other is required."""
    if len(text) > _LABEL:
        return None
    try:
        value = strictjson.loads(text.strip().encode())
    except (RequestError, UnicodeEncodeError):
        return None
    value = value.get("AIGC", value) if isinstance(value, dict) else None
    if not isinstance(value, dict) or "Label" not in value:
        return None
    fields = {name: value[name] for name in FIELDS if name in value}
    if not all(isinstance(v, str) and _VALUE.fullmatch(v) for v in fields.values()):
        return None
    return fields


def _written(aigc: Mapping[str, str]) -> str:
    fields = {name: aigc[name] for name in FIELDS}
    for name, value in fields.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{name} holds what no file can carry, or more than {LONGEST} characters")
    return json.dumps({"AIGC": fields}, ensure_ascii=False, separators=(",", ":"))


# ---- the pixels


def _decoded(picture: Picture) -> Image.Image:
    """The pixels, in a mode that can be drawn on in any colour."""
    kinds: dict[str, type[ImageFile]] = {"png": PngImageFile, "jpeg": JpegImageFile, "webp": WebPImageFile}
    try:
        image: Image.Image = kinds[picture.kind](io.BytesIO(picture.bare))
        # Before it is decoded: what was looked at is what is decoded.
        if image.size != picture.size:
            raise _unusable("a picture that cannot be decoded")
        image.load()
    except _BROKEN:
        raise _unusable("a picture that cannot be decoded") from None
    if picture.kind != "png":
        return image
    clear = image.info.get("transparency")
    if image.mode == "P":
        return image.convert("RGB" if clear is None else "RGBA")
    if image.mode == "1":
        image = image.convert("L")
    return image if clear is None else _with_alpha(image, clear, picture.bare[24])


def _with_alpha(image: Image.Image, clear: int | tuple[int, ...], depth: int) -> Image.Image:
    """The picture with the one colour that is transparent, of `depth` bits, as an alpha channel: the mark may be of that colour."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8)
    pixels = pixels.reshape(image.height, image.width, -1)
    key = np.array(clear).reshape(-1)
    key = key >> 8 if depth == 16 else key * 255 // (2**depth - 1)
    alpha = np.where((pixels == key).all(axis=2, keepdims=True), 0, 255).astype(np.uint8)
    mode = "LA" if pixels.shape[2] == 1 else "RGBA"
    return Image.frombytes(mode, image.size, np.concatenate([pixels, alpha], axis=2).tobytes())


def _encoded(image: Image.Image, picture: Picture) -> bytes:
    """The pixels in a file of the same kind, losing no more than the first one did."""
    out = io.BytesIO()
    if picture.kind == "png":
        image.save(out, "PNG", compress_level=4)
    elif picture.kind == "webp":
        image.save(out, "WEBP", lossless=picture.lossless, quality=25 if picture.lossless else 95, method=2, exact=True)
    else:
        image.save(out, "JPEG", **_as_before(image))
    return out.getvalue()


def _as_before(image: Image.Image) -> dict[str, object]:
    """How a JPEG was written."""
    assert isinstance(image, JpegImageFile)
    tables = [image.quantization[n] for n in range(len(image.quantization)) if n in image.quantization]
    how: dict[str, object] = {"progressive": "progressive" in image.info}
    if len(tables) == len(image.quantization) > 0 and image.layers != 4:
        how["qtables"] = tables
    elif 0 in image.quantization:
        how["qtables"] = tables[:1]
    else:
        how["quality"] = 95
    if image.layers == 3:
        how["subsampling"] = max(get_sampling(image), 0)
        if image.info.get("adobe_transform") == 0:
            how |= {"keep_rgb": True, "subsampling": 0}
    return how


# ---- the mark


@cache
def _font() -> bytes:
    return (files("app") / "data" / "fonts" / "label.otf").read_bytes()


def _draw(image: Image.Image, words: str, turn: int) -> None:
    """Put the mark where it is the lower right corner once the picture is turned as EXIF says."""
    width, height = image.size if turn < 5 else image.size[::-1]
    glyphs, margin = _plate(words, width, height)
    way, right, bottom = _TURNS[turn]
    if way is not None:
        glyphs = glyphs.transpose(way)
    x = image.width - margin - glyphs.width if right else margin
    y = image.height - margin - glyphs.height if bottom else margin
    box = (x, y, x + glyphs.width, y + glyphs.height)
    image.paste(_inked(image.crop(box), glyphs), box)


def _plate(words: str, width: int, height: int) -> tuple[Image.Image, int]:
    """The mark as white on black, and how far from the edges it stands. In a small picture the ten pixels give way, the share does not."""
    share = ceil(_SHARE * min(width, height))
    for tall in range(max(share, _LEAST), share - 1, -1):
        size = ceil(tall / _CAPITAL) + 1
        margin, pad, step = tall // 2, size // 4, ceil(1.2 * size)
        font = ImageFont.truetype(io.BytesIO(_font()), size, layout_engine=ImageFont.Layout.BASIC)
        lines = _lines(words, font, width - 2 * margin - 2 * pad)
        across = ceil(max(map(font.getlength, lines))) + 2 * pad
        down = len(lines) * step + pad
        if across + 2 * margin <= width and down + 2 * margin <= height:
            break
    plate = Image.new("L", (min(across, width), min(down, height)))
    draw = ImageDraw.Draw(plate)
    for number, line in enumerate(lines):
        # The middle of a Han character stands 0.38 of its size above the baseline.
        draw.text((pad, pad // 2 + number * step + step // 2 + round(0.38 * size)), line, 255, font, anchor="ls")
    return plate, min(margin, width - plate.width, height - plate.height)


def _lines(words: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """The words in lines, broken between Latin words and between any other characters."""
    lines = [""]
    for piece in _PIECES.findall(words.strip()):
        for part in [piece] if font.getlength(piece) <= room else piece:
            if lines[-1] and font.getlength((lines[-1] + part).rstrip()) > room:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
    return [line.rstrip() for line in lines]


def _inked(ground: Image.Image, glyphs: Image.Image) -> Image.Image:
    """The plate over a piece of the picture, and the glyphs on it: opaque, also where the picture is not."""
    mode = ground.mode
    was = np.asarray(ground)
    kind = was.dtype
    was = was.reshape(ground.height, ground.width, -1).astype(np.float32)
    ink = np.asarray(glyphs, np.float32)[..., None] / 255
    top = np.iinfo(kind).max
    left = (1 - _PLATE) * (1 - ink)
    alpha = was[..., -1:] / top if mode in ("LA", "RGBA") else np.float32(1)
    colours = was[..., :-1] if mode in ("LA", "RGBA") else was
    white = np.array(_WHITE.get(mode, (255,)), np.float32)
    black = np.array(_BLACK.get(mode, (0,)), np.float32)
    solid = 1 - left * (1 - alpha)
    made = (white * ink + black * _PLATE * (1 - ink) + colours * alpha * left) / solid
    if mode in ("LA", "RGBA"):
        made = np.concatenate([made, solid * top], axis=2)
    return Image.frombytes(mode, ground.size, np.rint(made).astype(kind).tobytes())
