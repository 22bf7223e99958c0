"""A picture's file in parts: what its pixels need, what speaks of it, and the file put together again around other pixels.

PNG chunks, JPEG segments, WebP's RIFF chunks; nothing of them is decoded here. Law: a part is kept byte for byte or left out whole. Left
out is what is true of the old pixels alone (a manifest that binds them, a small copy of them, their depth), and what no reader would miss.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from app.exif import HEADER as EXIF

Kind = Literal["png", "jpeg", "webp"]

_PARTS = 1 << 16
"""Parts of a file that are looked at: more are no picture."""
_SCANS = 100
"""Scans of a progressive JPEG: each costs a pass over the whole picture, however small it is."""
_TEXT, _SOURCES = 1 << 20, 8
"""Bytes of a compressed text, and texts that speak of the picture, that are read at most."""
_SEGMENT = 65533
"""Bytes that fit a JPEG segment."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
_MOVING = frozenset([b"acTL", b"fcTL", b"fdAT", b"ANIM", b"ANMF"])
_DEPTH = frozenset([b"sBIT", b"bKGD"])
"""True as long as a pixel is written as it was."""
_COLOUR = frozenset([b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pCAL", b"sCAL"])
"""Not to be copied by who does not know them: we do."""
_TEXTS = frozenset([b"tEXt", b"zTXt", b"iTXt"])
_PNG_XMP = b"XML:com.adobe.xmp"
_PROFILE = b"Raw profile type "
"""How EXIF and XMP were written before PNG had a place for them."""
_TIFF = (EXIF, b"II", b"MM")
_SPEAKING = re.compile(rb"XML:com\.adobe\.xmp\0|Raw profile type (?:xmp|exif|APP1)\0|[^\0]{0,79}?AIGC[^\0]{0,79}\0")
"""Texts that are not kept as they are: they are XMP, EXIF or a label."""

_SOI = b"\xff\xd8"
_SOS, _APP0, _APP1, _APP2, _APP11, _COMMENT = b"\xda", b"\xe0", b"\xe1", b"\xe2", b"\xeb", b"\xfe"
_APPS = frozenset(bytes([n]) for n in range(0xE1, 0xF0)) - {b"\xee"}
"""What says something about the picture. APP0 and Adobe's APP14 say what its numbers mean."""
_FRAMES = frozenset(bytes([n]) for n in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


class Part(NamedTuple):
    """A chunk by its name, or a segment by its marker."""

    name: bytes
    data: bytes


@dataclass
class Picture:
    """`bare`: the file with nothing but its pixels. `before`, `after`: what is kept, by where it stands to them. Of `xmp` and `exif` the
    first is what readers see. `extension`: XMP that did not fit a JPEG's packet; `notes`: what PNG's texts named AIGC hold."""

    kind: Kind
    size: tuple[int, int] = (0, 0)
    bare: bytes = b""
    before: list[Part] = field(default_factory=list)
    after: list[Part] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    exif: list[bytes] = field(default_factory=list)
    extension: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moving: bool = False
    bound: bool = False
    """A C2PA manifest binds the pixels as they are."""
    lossless: bool = False

    @property
    def room(self) -> int:
        """Bytes of an XMP packet that the file can hold."""
        return _SEGMENT - len(_XMP) if self.kind == "jpeg" else 1 << 24


def split(raw: bytes) -> Picture:
    """The parts of a PNG, JPEG or WebP. Raises ValueError for anything else, and for one that is cut short."""
    if raw.startswith(_PNG):
        read = _png
    elif raw.startswith(_SOI):
        read = _jpeg
    elif raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
        read = _webp
    else:
        raise ValueError("no PNG, JPEG or WebP")
    try:
        picture = read(raw)
    except (struct.error, IndexError):
        raise ValueError("a picture that is cut short") from None
    if 0 in picture.size and not picture.moving:
        raise ValueError("a picture without pixels")
    return picture


def join(picture: Picture, pixels: bytes, xmp: bytes, exif: bytes | None) -> bytes:
    """The file around other pixels: those of `pixels`, a file of the same kind."""
    return {"png": _png_of, "jpeg": _jpeg_of, "webp": _webp_of}[picture.kind](picture, pixels, xmp, exif)


def extended(picture: Picture) -> bytes:
    """The packet that `extension` is, put together."""
    offset = len(_EXTENSION) + 36
    return b"".join(p.data[offset + 4 :] for p in sorted(picture.extension, key=lambda p: p.data[offset : offset + 4]))


# ---- PNG


def _chunks(raw: bytes) -> Iterator[tuple[Part, bytes]]:
    """The chunks up to the last, each also as it stands. One with a wrong checksum is left out, if no pixel needs it."""
    at = len(_PNG)
    for _ in range(_PARTS):
        length, name = struct.unpack_from(">I4s", raw, at)
        (checksum,) = struct.unpack_from(">I", raw, at + 8 + length)
        whole = raw[at : at + 12 + length]
        at += len(whole)
        right = zlib.crc32(whole[4:-4]) == checksum
        if not right and name in _PIXELS:
            raise ValueError("a PNG that is damaged")
        if right and name.isalpha():
            yield Part(name, whole[8:-4]), whole
        if name == b"IEND":
            return
    raise ValueError("a PNG of too many parts")


def _chunk(part: Part) -> bytes:
    return (
        struct.pack(">I", len(part.data)) + part.name + part.data + struct.pack(">I", zlib.crc32(part.name + part.data))
    )


def _png(raw: bytes) -> Picture:
    picture = Picture("png", lossless=True)
    bare, side, texts = [_PNG], picture.before, list[Part]()
    for part, whole in _chunks(raw):
        name, data = part
        picture.moving |= name in _MOVING
        picture.bound |= name == b"caBX"
        if name in _PIXELS:
            bare.append(whole)
            if name == b"IHDR":
                if len(bare) > 2:
                    # Two readers could take different ones.
                    raise ValueError("a PNG of several headers")
                width, height = struct.unpack_from(">II", data)
                picture.size = width, height
            elif name == b"IDAT":
                side = picture.after
        elif name == b"eXIf":
            picture.exif.append(data)
        elif name in _TEXTS and _SPEAKING.match(data):
            texts.append(part)
        elif name in _COLOUR or name in _DEPTH or (name[0] & 0x20 and name[3] & 0x20):
            side.append(part)
    picture.bare = b"".join(bare)
    profiles = list[bytes]()
    for part in texts[:_SOURCES]:
        keyword, text = _text(part)
        if keyword == _PNG_XMP:
            picture.xmp.append(text)
        elif keyword.startswith(_PROFILE):
            profiles.append(_profile(text))
        else:
            picture.notes.append(text.decode("utf-8", "replace"))
    for block in profiles:
        (picture.exif if block.startswith(_TIFF) else picture.xmp).append(block.removeprefix(_XMP))
    return picture


def _text(part: Part) -> tuple[bytes, bytes]:
    """The keyword and what it stands for."""
    keyword, _, rest = part.data.partition(b"\0")
    packed = part.name == b"zTXt" or (part.name == b"iTXt" and rest[:1] == b"\1")
    if part.name == b"zTXt":
        rest = rest[1:]
    elif part.name == b"iTXt":
        rest = b"\0".join(rest[2:].split(b"\0", 2)[2:])
    return keyword, _unpacked(rest) if packed else rest


def _profile(text: bytes) -> bytes:
    """The block in a raw profile: a line with its name, one with its length, then digits."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii", "replace"))
    except ValueError:
        return b""


def _unpacked(packed: bytes) -> bytes:
    """A compressed text; nothing if it is none, or too long."""
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(packed, _TEXT)
    except zlib.error:
        return b""
    return text if unpack.eof else b""


def _png_of(picture: Picture, pixels: bytes, xmp: bytes, exif: bytes | None) -> bytes:
    made = [(part, whole) for part, whole in _chunks(pixels) if part.name in _PIXELS]
    header = len(_PNG) + 16
    as_it_was = picture.bare[header : header + 10] == pixels[header : header + 10]
    before = [p for p in picture.before if as_it_was or p.name not in _DEPTH]
    if exif:
        before.append(Part(b"eXIf", exif))
    before.append(Part(b"iTXt", _PNG_XMP + bytes(5) + xmp))
    return b"".join(
        [_PNG, made[0][1], *map(_chunk, before), *(w for _, w in made[1:-1]), *map(_chunk, picture.after), made[-1][1]]
    )


# ---- JPEG


def _segments(raw: bytes) -> Iterator[tuple[Part, bytes]]:
    """The segments up to the scans, each also as it stands; the last is all that is left."""
    at = len(_SOI)
    for _ in range(_PARTS):
        start = at
        if raw[at] != 0xFF:
            raise ValueError("a JPEG that is damaged")
        while raw[at] == 0xFF:
            at += 1
        marker = raw[at : at + 1]
        if marker == _SOS:
            yield Part(_SOS, raw[start:]), raw[start:]
            return
        (length,) = struct.unpack_from(">H", raw, at + 1)
        data = raw[at + 3 : at + 1 + length]
        if not 0xC0 <= marker[0] <= 0xFE or len(data) != length - 2:
            raise ValueError("a JPEG that is damaged")
        at += 1 + length
        yield Part(marker, data), raw[start:at]
    raise ValueError("a JPEG of too many parts")


def _segment(marker: bytes, data: bytes) -> bytes:
    if len(data) > _SEGMENT:
        raise ValueError("a segment that is too long")
    return b"\xff" + marker + struct.pack(">H", len(data) + 2) + data


def _jpeg(raw: bytes) -> Picture:
    picture = Picture("jpeg")
    bare = [_SOI]
    for part, whole in _segments(raw):
        marker, data = part
        if marker == _APP1 and data.startswith(_XMP):
            picture.xmp.append(data.removeprefix(_XMP))
        elif marker == _APP1 and data.startswith(_EXTENSION):
            picture.extension.append(part)
        elif marker == _APP1 and data.startswith(EXIF[:5]):
            picture.exif.append(data[len(EXIF) :])
        elif marker == _APP11:
            picture.bound |= data.startswith(b"JP")
        elif marker in _APPS or marker == _COMMENT:
            if marker != _APP2 or not data.startswith(b"MPF\0"):
                picture.before.append(part)
        else:
            bare.append(whole)
            if marker in _FRAMES:
                if picture.size != (0, 0):
                    raise ValueError("a JPEG of several pictures")
                height, width = struct.unpack_from(">HH", data, 1)
                picture.size = width, height
            elif marker == _APP0:
                picture.before.append(part)
            elif marker == _SOS and data.count(b"\xff" + _SOS) > _SCANS:
                raise ValueError("a JPEG of too many scans")
    picture.bare = b"".join(bare)
    return picture


def _jpeg_of(picture: Picture, pixels: bytes, xmp: bytes, exif: bytes | None) -> bytes:
    made = list(_segments(pixels))
    # JFIF says what the numbers mean, so it stands where the new pixels have it, with the density of the old.
    jfif = [whole for part, whole in made if part.name == _APP0]
    if jfif:
        jfif = [_segment(*p) for p in picture.before if p.name == _APP0 and p.data.startswith(b"JFIF\0")][:1] or jfif
    return b"".join(
        [
            _SOI,
            *jfif,
            *([_segment(_APP1, EXIF + exif)] if exif else []),
            _segment(_APP1, _XMP + xmp),
            *(_segment(*part) for part in [*picture.extension, *picture.before] if part.name != _APP0),
            *(whole for part, whole in made if part.name != _APP0),
        ]
    )


# ---- WebP


def _riff(raw: bytes) -> Iterator[Part]:
    (size,) = struct.unpack_from("<I", raw, 4)
    at, end = 12, 8 + size
    if end > len(raw):
        raise IndexError
    for _ in range(_PARTS):
        if at + 8 > end:
            return
        name, length = struct.unpack_from("<4sI", raw, at)
        at += 8
        if at + length > end:
            raise IndexError
        yield Part(name, raw[at : at + length])
        at += length + (length & 1)
    raise ValueError("a WebP of too many parts")


def _riff_of(parts: list[Part]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) & 1) for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webp(raw: bytes) -> Picture:
    picture = Picture("webp")
    pixels: list[Part] = []
    for part in _riff(raw):
        name, data = part
        picture.moving |= name in _MOVING
        picture.bound |= name == b"C2PA"
        if name == b"XMP ":
            picture.xmp.append(data)
        elif name == b"EXIF":
            picture.exif.append(data.removeprefix(EXIF))
        elif name == b"ICCP":
            picture.before.append(part)
        elif name == b"VP8 " or name == b"VP8L":
            pixels.append(part)
            picture.lossless = name == b"VP8L"
            picture.size = _webp_size(part)
        elif name == b"ALPH":
            pixels.append(part)
        elif name not in (b"VP8X", b"C2PA"):
            picture.after.append(part)
    if picture.moving:
        return picture
    if 0 in picture.size or [p.name for p in pixels] not in ([b"VP8 "], [b"VP8L"], [b"ALPH", b"VP8 "]):
        raise ValueError("a WebP that is damaged")
    picture.bare = _riff_of([_extended(picture.size, pixels, 0), *pixels])
    return picture


def _webp_size(part: Part) -> tuple[int, int]:
    if part.name == b"VP8L":
        (bits,) = struct.unpack_from("<I", part.data, 1)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", part.data, 6)
    return width & 0x3FFF, height & 0x3FFF


def _extended(size: tuple[int, int], pixels: list[Part], flags: int) -> Part:
    """The chunk that says what else there is. Whether VP8L has alpha stands in a bit of its own."""
    alpha = any(p.name == b"ALPH" or (p.name == b"VP8L" and p.data[4] & 0x10) for p in pixels)
    return Part(
        b"VP8X",
        struct.pack("<I", flags | (0x10 if alpha else 0)) + b"".join((n - 1).to_bytes(3, "little") for n in size),
    )


def _webp_of(picture: Picture, pixels: bytes, xmp: bytes, exif: bytes | None) -> bytes:
    made = [p for p in _riff(pixels) if p.name in (b"VP8 ", b"VP8L", b"ALPH")]
    profile = picture.before[:1]
    meta = [*([Part(b"EXIF", exif)] if exif else []), Part(b"XMP ", xmp)]
    flags = (0x20 if profile else 0) | (0x08 if exif else 0) | 0x04
    return _riff_of([_extended(_webp_size(made[-1]), made, flags), *profile, *made, *meta, *picture.after])
