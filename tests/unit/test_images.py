"""Pictures' marks and labels: read back by ExifTool and by a reader of this file's own, and measured from the pixels."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFont, PngImagePlugin

from app import xmp
from app.errors import UpstreamError
from app.images import bound, drawable, marked, read
from app.labels import FIELDS, GLYPHS
from tests.conftest import ROOT

WORDS = "AI生成"
LABEL = dict(
    zip(FIELDS, ("1", "code-of-a-provider", "number-1", "", "code-of-a-provider", "number-1", ""), strict=True)
)
OLD = dict(zip(FIELDS, ("2", "older", "0", "a", "older", "0", "b"), strict=True))
NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PNG = b"\x89PNG\r\n\x1a\n"
PROPERTY = f"<z:AIGC xmlns:z='{NAMESPACE}'>%s</z:AIGC>"
NOISE = np.random.default_rng(45438)

Array = np.ndarray[Any, np.dtype[Any]]


# ---- pictures


def scene(width: int = 320, height: int = 240, channels: int = 3) -> Array:
    """A picture with slopes, edges and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin(x / 40), 128 + 90 * np.cos(y / 30), (x + y) % 256, 255 - (x * 255 // width)][:channels]
    noisy = np.stack(planes, 2) + NOISE.normal(0, 2, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def image(mode: str = "RGB", width: int = 320, height: int = 240) -> Image.Image:
    if mode == "I;16":
        y, x = np.mgrid[0:height, 0:width]
        return Image.fromarray((x * 150 + y * 60).astype(np.uint16))
    if mode in ("RGB", "RGBA", "CMYK"):
        return Image.frombytes(mode, (width, height), scene(width, height, len(mode)).tobytes())
    return Image.fromarray(scene(width, height)).convert(mode)


def file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def opened(raw: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(raw))
    picture.load()
    return picture


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes, raw: bytes | None = None) -> bytes:
    """A PNG with these chunks before its pixels."""
    raw = raw or file(image(), "PNG")
    at = raw.index(b"IDAT") - 4
    return raw[:at] + b"".join(chunks) + raw[at:]


def png_of(depth: int, colour: int, rows: list[bytes], width: int, *chunks: bytes) -> bytes:
    """A PNG in a form that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_with(*segments: tuple[int, bytes], raw: bytes | None = None) -> bytes:
    """A JPEG with these segments behind its first."""
    raw = raw or file(image(), "JPEG")
    at = 4 + struct.unpack_from(">H", raw, 4)[0]
    made = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments)
    return raw[:at] + made + raw[at:]


def webp_with(*chunks: tuple[bytes, bytes]) -> bytes:
    raw = file(image(), "WEBP")
    parts = b"".join(n + struct.pack("<I", len(d)) + d + bytes(len(d) & 1) for n, d in chunks)
    header = b"VP8X" + struct.pack("<II", 10, 0x0C) + (319).to_bytes(3, "little") + (239).to_bytes(3, "little")
    body = b"WEBP" + header + raw[12:] + parts
    return b"RIFF" + struct.pack("<I", len(body)) + body


def packet(inside: str, about: str = "", description: str = "") -> bytes:
    """An XMP packet."""
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="{about}" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:q="urn:example:q" {description}>'
        f"{inside}</rdf:Description></rdf:RDF></x:xmpmeta>\n{' ' * 200}<?xpacket end='w'?>"
    ).encode()


def with_xmp(kind: str, held: bytes) -> bytes:
    if kind == "PNG":
        return png_with(chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + held))
    return jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + held)) if kind == "JPEG" else webp_with((b"XMP ", held))


def said(label: dict[str, str], around: bool = True) -> str:
    return json.dumps({"AIGC": label} if around else label, ensure_ascii=False)


def exif_with(comment: bytes, orientation: int = 1, order: str = "<") -> bytes:
    """EXIF with an orientation, a maker and a user's comment."""
    maker = b"a maker\0"
    first = 8 + 2 + 3 * 12 + 4
    block = b"II*\0" if order == "<" else b"MM\0*"
    block += struct.pack(order + "IH", 8, 3)
    block += struct.pack(order + "HHII", 0x010F, 2, len(maker), first)
    block += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    block += struct.pack(order + "HHII", 0x8769, 4, 1, first + len(maker))
    block += struct.pack(order + "I", 0) + maker
    start = len(block) + 2 + 12 + 4
    return block + struct.pack(order + "HHHIII", 1, 0x9286, 7, len(comment), start, 0) + comment


# ---- readers


class Tool:
    """ExifTool, started once."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("exiftool"), "exiftool is missing: apt-get install libimage-exiftool-perl"
        self._file = folder / "picture"
        call = ["exiftool", "-stay_open", "True", "-@", "-"]
        self._process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __call__(self, raw: bytes, *options: str) -> dict[str, Any]:
        """What it says of a picture, by group and name; it finds nothing wrong with it."""
        self._file.write_bytes(raw)
        assert self._process.stdin and self._process.stdout
        asked = ["-j", "-a", "-G1", "-struct", *options, str(self._file), "-execute"]
        print(*asked, sep="\n", file=self._process.stdin, flush=True)
        (tags,) = json.loads("".join(iter(self._process.stdout.readline, "{ready}\n")))
        assert not [name for name in tags if name.endswith((":Warning", ":Error"))], tags
        return tags  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._process.communicate("-stay_open\nFalse\n", timeout=20)


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    made = Tool(tmp_path_factory.mktemp("exiftool"))
    yield made
    made.stop()


def packets(raw: bytes) -> list[ElementTree.Element]:
    """The XMP packets in a file, cut out of its bytes."""
    found = raw.split(b"<x:xmpmeta")[1:]
    return [ElementTree.fromstring(b"<x:xmpmeta" + rest.split(b"</x:xmpmeta>")[0] + b"</x:xmpmeta>") for rest in found]


def labels(raw: bytes) -> list[dict[str, Any]]:
    """The labels in a file: elements and attributes of its packets; the name stands nowhere else."""
    found = []
    for root in packets(raw):
        for element in root.iter():
            if element.tag == f"{{{NAMESPACE}}}AIGC":
                found.append(element.text or "")
            found += [v for k, v in element.attrib.items() if k == f"{{{NAMESPACE}}}AIGC"]
    # Beside namespaces and tags, the name stands in the values alone.
    assert len(re.findall(rb"(?<!ns/)(?<!\w:)AIGC", raw)) == len(found)
    return [json.loads(text) for text in found]


def one_label(raw: bytes, tool: Tool, label: dict[str, str] = LABEL) -> None:
    """The file holds this label and no other, whoever reads it."""
    assert labels(raw) == [{"AIGC": label}]
    assert list(labels(raw)[0]["AIGC"]) == list(FIELDS)
    assert read(raw) == label
    assert raw.count(b"<TC260:AIGC>") == 1
    seen = [v for k, v in tool(raw).items() if "aigc" in k.lower()]
    assert [json.loads(v) if isinstance(v, str) else v for v in seen] == [{"AIGC": label}]


def changed(before: Image.Image, after: Image.Image, mode: str = "RGB", by: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is not the same."""
    assert before.size == after.size
    gap = np.abs(np.asarray(before.convert(mode)).astype(int) - np.asarray(after.convert(mode)).astype(int))
    apart = gap.reshape(*gap.shape[:2], -1).max(axis=2) > by
    rows, columns = np.flatnonzero(apart.any(axis=1)), np.flatnonzero(apart.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def luminance(colours: Array) -> Array:
    """By WCAG, of sRGB colours."""
    part = colours / 255
    part = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return part @ np.array([0.2126, 0.7152, 0.0722])


def contrast(light: Any, dark: Any) -> Any:
    return (light + 0.05) / (dark + 0.05)


# ---- formats


FORMATS = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "L", {}),
    ("PNG", "LA", {}),
    ("PNG", "1", {}),
    ("PNG", "P", {}),
    ("PNG", "I;16", {}),
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "RGB", {"quality": 60, "subsampling": 0, "progressive": True}),
    ("JPEG", "RGB", {"quality": 90, "keep_rgb": True}),
    ("JPEG", "L", {"quality": 90}),
    ("JPEG", "CMYK", {"quality": 90}),
    ("WEBP", "RGB", {"quality": 90}),
    ("WEBP", "RGBA", {"quality": 90}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"lossless": True, "exact": True}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), FORMATS, ids=lambda v: str(v))
def test_a_picture_of_any_format_keeps_format_and_size_and_gets_one_label(
    kind: str, mode: str, options: dict[str, Any], tool: Tool
) -> None:
    raw = file(image(mode), kind, **options)
    made = marked(raw, LABEL, WORDS)
    assert (opened(made).format, opened(made).size) == (kind, (320, 240))
    one_label(made, tool)
    assert read(raw) is None


@pytest.mark.parametrize(("kind", "mode", "options"), FORMATS, ids=lambda v: str(v))
def test_only_what_is_near_the_mark_changes(kind: str, mode: str, options: dict[str, Any]) -> None:
    raw = file(image(mode), kind, **options)
    before, after = opened(raw), opened(marked(raw, LABEL, WORDS))
    lossless = kind == "PNG" or "lossless" in options
    as_mode = {"1": "L", "P": "RGB"}.get(mode, mode)
    assert after.mode == as_mode
    # What is coded again differs a little everywhere, and in the blocks that the mark touches.
    left, top, right, bottom = changed(before, after, as_mode, by=0 if lossless else 48)
    around = 0 if lossless else 16
    assert left > 320 * 0.6 - around and top > 240 * 0.75 - around
    assert right <= 320 - 5 + around and bottom <= 240 - 5 + around
    if not lossless:
        far = np.asarray(before)[:170].astype(int) - np.asarray(after)[:170].astype(int)
        assert np.abs(far).mean() < (1 if kind == "JPEG" else 3)


@pytest.mark.parametrize(
    "options", [{"quality": 35}, {"quality": 97, "subsampling": 1}, {"quality": 80, "subsampling": 0}]
)
def test_a_jpeg_is_written_with_the_tables_and_the_subsampling_it_came_with(options: dict[str, Any]) -> None:
    raw = file(image(), "JPEG", **options)
    before, after = opened(raw), opened(marked(raw, LABEL, WORDS))
    assert before.quantization == after.quantization  # type: ignore[attr-defined]
    assert before.layer == after.layer  # type: ignore[attr-defined]


@pytest.mark.parametrize("clear", [0, 255])
def test_a_colour_that_is_transparent_becomes_a_channel(clear: int) -> None:
    grey = image("L")
    grey.paste(clear, (0, 0, 320, 240))
    grey.paste(128, (0, 0, 100, 100))
    rgb = grey.convert("RGB")
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    files = [
        file(grey, "PNG", transparency=clear),
        file(rgb, "PNG", transparency=(clear,) * 3),
        file(palette, "PNG", transparency=palette.getpixel((319, 239))),
    ]
    for raw in files:
        after = opened(marked(raw, LABEL, WORDS)).convert("RGBA")
        assert after.getpixel((50, 50)) == (128, 128, 128, 255)
        assert after.getpixel((5, 235))[3] == 0  # type: ignore[index]
        # The mark is there, black or white as it is.
        assert np.asarray(after)[200:, 200:, 3].max() == 255


def test_forms_of_png_that_few_write_stay_right() -> None:
    width, values = 64, range(64)
    rows = {
        ("grey of 2 bits, one clear", 2, 0): [bytes(0b00011011 for _ in range(16))] * 64,
        ("grey of 4 bits, one clear", 4, 0): [bytes(((v * 2 % 16) << 4) | (v * 2 + 1) % 16 for v in range(32))] * 64,
        ("grey of 16 bits, one clear", 16, 0): [struct.pack(">64H", *(v * 1000 for v in values))] * 64,
        ("colours of 16 bits, one clear", 16, 2): [struct.pack(">192H", *(c for v in values for c in (v * 1000, 0, 513)))] * 64,
        ("colours of 16 bits with alpha", 16, 6): [struct.pack(">256H", *(c for v in values for c in (v * 1000, 0, 0, 65535)))] * 64,
        ("grey of 16 bits with alpha", 16, 4): [struct.pack(">128H", *(c for v in values for c in (v * 1000, 65535)))] * 64,
    }  # fmt: skip
    clear = {2: {0: b"\0\1"}, 4: {0: b"\0\5"}, 16: {0: struct.pack(">H", 5000), 2: struct.pack(">HHH", 5000, 0, 513)}}
    for (name, depth, colour), lines in rows.items():
        key = clear[depth].get(colour)
        raw = png_of(
            depth,
            colour,
            lines,
            width,
            *([chunk(b"tRNS", key)] if key else []),
            chunk(b"bKGD", bytes(6 if colour & 2 else 2)),
        )
        after = opened(marked(raw, LABEL, WORDS))
        made = np.asarray(after.convert("RGBA"))[0]
        step = {2: 85, 4: 17}.get(depth)
        expected = [(i % 4 if depth == 2 else i % 16) * step if step else i * 1000 >> 8 for i in values]
        assert made[:, 0].tolist() == expected, name
        unseen = [] if not key else [i for i, v in enumerate(expected) if v == (85 if step else 5000 >> 8)]
        assert np.flatnonzero(made[:, 3] == 0).tolist() == unseen, name


# ---- the mark


def ink(raw: bytes) -> Array:
    """Where the glyphs of a mark on a black picture stand, row by row."""
    return np.asarray(opened(raw).convert("L")) > 127


@pytest.mark.parametrize(
    ("width", "height"),
    [(1024, 1024), (1792, 1024), (768, 1344), (64, 64), (200, 150), (3000, 500), (97, 4001), (40, 40)],
)
def test_characters_are_at_least_a_twentieth_of_the_shorter_side_and_ten_pixels_high(width: int, height: int) -> None:
    for words in ("AI", "AI生成", "生成"):
        shown = ink(marked(file(Image.new("RGB", (width, height)), "PNG"), LABEL, words))
        rows = np.flatnonzero(shown.any(axis=1))
        # Lines apart from each other: in a narrow picture there may be more than one.
        lines = np.split(rows, np.flatnonzero(np.diff(rows) > 2) + 1)
        assert min(len(line) for line in lines) >= max(0.05 * min(width, height), 10), words
        assert rows[-1] < height and rows[0] > 0


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 900), (900, 3), (16, 16), (25, 12)])
def test_the_smallest_pictures_are_marked_as_far_as_they_go(width: int, height: int, tool: Tool) -> None:
    made = marked(file(Image.new("RGB", (width, height), "white"), "PNG"), LABEL, WORDS)
    assert opened(made).size == (width, height)
    one_label(made, tool)
    assert np.asarray(opened(made).convert("L")).min() < 255


def test_long_words_are_broken_into_lines_that_stay_inside() -> None:
    words = "本图片以下内容由人工智能生成合成、大模型辅助制作（AI-generated content）"
    assert drawable(words)
    for width, height in ((600, 600), (300, 1200), (2000, 300)):
        raw = file(Image.new("RGB", (width, height)), "PNG")
        shown = ink(marked(raw, LABEL, words))
        columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
        assert columns[0] > 5 and columns[-1] < width - 5 and rows[0] > 5 and rows[-1] < height - 5
        lines = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        assert (len(lines) > 1) == (width < 2000)


GROUNDS = {
    "black": np.zeros((600, 600, 3)),
    "white": np.full((600, 600, 3), 255),
    "grey": np.full((600, 600, 3), 128),
    "yellow": np.full((600, 600, 3), (255, 255, 0)),
    "noise": NOISE.integers(0, 256, (600, 600, 3)),
    "stripes": np.tile(np.repeat([[0], [255]], 1, axis=0), (300, 600))[..., None].repeat(3, axis=2),
}


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_mark_can_be_read_on_any_ground(ground: str) -> None:
    raw = file(Image.fromarray(GROUNDS[ground].astype(np.uint8)), "PNG")
    made = np.asarray(opened(marked(raw, LABEL, WORDS)))
    solid = np.asarray(opened(marked(file(Image.new("RGB", (600, 600)), "PNG"), LABEL, WORDS)).convert("L"))
    white = file(Image.new("RGB", (600, 600), "white"), "PNG")
    left, top, right, bottom = changed(opened(white), opened(marked(white, LABEL, WORDS)))
    plate = np.zeros(solid.shape, bool)
    plate[top:bottom, left:right] = True
    light, dark = luminance(made[solid == 255]), luminance(made[plate & (solid == 0)])
    # WCAG asks for 4.5 to 1 for text.
    assert contrast(light.min(), dark.max()) > 4.5


@pytest.mark.parametrize("page", [0, 255])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_the_mark_can_be_read_where_a_picture_is_transparent(kind: str, options: dict[str, Any], page: int) -> None:
    raw = file(Image.new("RGBA", (600, 600), (255, 255, 255, 0)), kind, **options)
    over = Image.new("RGBA", (600, 600), (page, page, page, 255))
    over.alpha_composite(opened(marked(raw, LABEL, WORDS)).convert("RGBA"))
    solid = np.asarray(opened(marked(file(Image.new("RGB", (600, 600)), "PNG"), LABEL, WORDS)).convert("L"))
    rows, columns = np.flatnonzero((solid == 255).any(axis=1)), np.flatnonzero((solid == 255).any(axis=0))
    inside = np.zeros_like(solid, bool)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    made = np.asarray(over.convert("RGB"))
    assert contrast(luminance(made[solid == 255]).min(), luminance(made[inside & (solid == 0)]).max()) > 4.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_mark_stands_upright_in_the_corner_that_the_viewer_sees(kind: str, orientation: int, tool: Tool) -> None:
    plain = Image.new("RGB", (300, 200), "white")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Lossless, so that what is seen can be compared.
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    made = marked(file(plain, kind, exif=exif, **options), LABEL, WORDS)
    assert tool(made, "-n")["IFD0:Orientation"] == orientation
    turn = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180], 4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.ROTATE_270, Image.Transpose.FLIP_LEFT_RIGHT], 6: [Image.Transpose.ROTATE_270],
        7: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT], 8: [Image.Transpose.ROTATE_90],
    }.get(orientation, [])  # fmt: skip
    seen = opened(made)
    for way in turn:
        seen = seen.transpose(way)
    upright = opened(marked(file(Image.new("RGB", seen.size, "white"), "PNG"), LABEL, WORDS))
    gap = np.abs(np.asarray(seen).astype(int) - np.asarray(upright).astype(int))
    assert gap.max() <= (30 if kind == "JPEG" else 0)


def test_the_font_has_what_it_is_said_to_have() -> None:
    font = ImageFont.truetype(ROOT / "app" / "data" / "fonts" / "label.otf", 40, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(font.getmask("龘"))
    for ch in GLYPHS - {" "}:
        assert font.getmask(ch).getbbox() and bytes(font.getmask(ch)) != missing, ch
    for ch in "龘鑫é\t\n\u3000😀":
        assert not drawable(f"AI{ch}")
    folder = ROOT / "app" / "data" / "fonts"
    assert (folder / "label.otf").stat().st_size < 60_000
    assert "SIL OPEN FONT LICENSE Version 1.1" in (folder / "OFL.txt").read_text("utf-8")


def test_words_that_cannot_be_drawn_are_named_by_the_character_alone() -> None:
    raw = file(image(), "PNG")
    for words in ("", "   ", "A" * 65):
        assert not drawable(words)
        with pytest.raises(ValueError, match="1 to 64"):
            marked(raw, LABEL, words)
    with pytest.raises(ValueError, match="'龘'") as caught:
        marked(raw, LABEL, "AI生成龘秘密")
    assert "秘" not in str(caught.value) and "生成" not in str(caught.value)


# ---- the label


SOURCES = {
    "PNG, XMP element": with_xmp("PNG", packet(PROPERTY % said(OLD))),
    "PNG, XMP attribute": with_xmp("PNG", packet("", description=f"xmlns:z='{NAMESPACE}' z:AIGC='{said(OLD)}'")),
    "PNG, XMP as CDATA": with_xmp("PNG", packet(f"<AIGC xmlns='{NAMESPACE}'><![CDATA[{said(OLD)}]]></AIGC>")),
    "PNG, XMP without the name around": with_xmp("PNG", packet(PROPERTY % said(OLD, False))),
    "PNG, compressed XMP": png_with(
        chunk(
            b"iTXt",
            b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet(PROPERTY % said(OLD))),
        )
    ),
    "PNG, XMP as a raw profile": png_with(
        chunk(
            b"zTXt",
            b"Raw profile type xmp\0\0"
            + zlib.compress(
                b"\nxmp\n    1\n" + packet(PROPERTY % said(OLD)).hex("\n", -36).encode()
            ),
        )
    ),
    "PNG, tEXt": png_with(chunk(b"tEXt", b"AIGC\0" + said(OLD).encode())),
    "PNG, tEXt without the name around": png_with(chunk(b"tEXt", b"AIGC\0" + said(OLD, False).encode())),
    "PNG, zTXt": png_with(chunk(b"zTXt", b"AIGC\0\0" + zlib.compress(said(OLD).encode()))),
    "PNG, iTXt": png_with(chunk(b"iTXt", b"AIGC\0\0\0zh\0\0" + said(OLD).encode())),
    "PNG, EXIF": png_with(chunk(b"eXIf", exif_with(b"ASCII\0\0\0" + said(OLD).encode()))),
    "JPEG, XMP element": with_xmp("JPEG", packet(PROPERTY % said(OLD))),
    "JPEG, XMP attribute": with_xmp("JPEG", packet("<q:more>1</q:more>", description=f"xmlns:z='{NAMESPACE}' z:AIGC='{said(OLD)}'")),
    "JPEG, extended XMP": jpeg_with(
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet("")),
        *(
            (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 1, at) + part)
            for at, part in (
                lambda whole: [(300, whole[300:]), (0, whole[:300])]  # out of order
            )(packet(PROPERTY % said(OLD)))
        ),
    ),
    "JPEG, EXIF": jpeg_with((0xE1, b"Exif\0\0" + exif_with(b"ASCII\0\0\0" + said(OLD).encode()))),
    "JPEG, EXIF in UTF-16": jpeg_with((0xE1, b"Exif\0\0" + exif_with(b"UNICODE\0" + said(OLD).encode("utf-16-be"), order=">"))),
    "JPEG, EXIF without a charset": jpeg_with((0xE1, b"Exif\0\0" + exif_with(said(OLD).encode()))),
    "WebP, XMP element": with_xmp("WEBP", packet(PROPERTY % said(OLD))),
    "WebP, EXIF": webp_with((b"EXIF", exif_with(bytes(8) + said(OLD).encode()))),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_a_label_is_read_wherever_it_stands_and_gives_way_to_the_new_one(source: str, tool: Tool) -> None:
    raw = SOURCES[source]
    assert read(raw) == OLD
    made = marked(raw, LABEL, WORDS)
    one_label(made, tool)
    if "EXIF" in source:
        assert tool(made)["IFD0:Make"] == "a maker"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_marking_twice_leaves_one_label(kind: str, tool: Tool) -> None:
    once = marked(file(image(), kind), OLD, WORDS)
    twice = marked(once, LABEL, WORDS)
    one_label(once, tool, OLD)
    one_label(twice, tool)
    assert abs(len(twice) - len(once)) < len(once) // 10


def test_what_a_field_may_hold_is_written_and_read_back_and_nothing_else(tool: Tool) -> None:
    odd = {**LABEL, "ContentProducer": "甲公司 & <b>\"乙\"</b> ]]> \\ 'x' 𠀀", "ReservedCode1": "Zm9v" * 512}
    for kind in ("PNG", "JPEG", "WEBP"):
        one_label(marked(file(image(), kind), odd, WORDS), tool, odd)
    raw = file(image(), "PNG")
    for value in ("a\nb", "\0", "\ufffe", "\ud800", "a" * 2049):
        with pytest.raises(ValueError, match="ContentProducer holds"):
            marked(raw, {**LABEL, "ContentProducer": value}, WORDS)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn", "Co", "Cc"]), max_size=60))
def test_any_field_is_read_back(value: str) -> None:
    label = {**LABEL, "ReservedCode2": value}
    assert read(marked(TINY, label, WORDS)) == label


TINY = file(Image.new("L", (8, 8)), "PNG")


# ---- what is kept


def test_a_packet_changes_where_its_label_stood_and_nowhere_else() -> None:
    before = "<dc:x q:a='a > z:AIGC=\"b\"'/><!-- z:AIGC='c' --><dc:y><![CDATA[<z:AIGC>]]></dc:y>"
    for inside, attribute in (
        (f"{PROPERTY % said(OLD)}{before}{PROPERTY % ''}", ""),
        (f"{before}<z:AIGC xmlns:z='{NAMESPACE}'/>", f" q:b='1 > 0' z:AIGC = '{said(OLD)}'"),
        (f"{before}<z:AIGC xmlns:z='{NAMESPACE}'><a><z:AIGC>1</z:AIGC></a></z:AIGC>", ""),
    ):
        made = xmp.with_value(packet(inside, "urn:a&amp;b", f"xmlns:z='{NAMESPACE}'{attribute}"), "{}", 1 << 20)
        left = packet(before, "urn:a&amp;b", f"xmlns:z='{NAMESPACE}'{attribute.partition(' z:')[0]}").decode()
        start, end = left.split("</rdf:RDF>")
        added = f'<rdf:Description xmlns:rdf="{RDF}" rdf:about="urn:a&amp;b" xmlns:TC260="{NAMESPACE}"><TC260:AIGC>{{}}</TC260:AIGC>'
        assert made.decode() == f"{start}{added}</rdf:Description></rdf:RDF>{end}"
        assert xmp.values(made) == ["{}"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_profile_exif_and_other_properties_stay(kind: str, tool: Tool) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 3
    inside = (
        "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>ein Titel</rdf:li></rdf:Alt></dc:title><!-- a remark -->"
        f"<z:AIGC xmlns:z='{NAMESPACE}'>{said(OLD)}</z:AIGC><q:seed>42</q:seed>"
    )
    old = packet(inside, about="uuid:1", description=f"q:note='a note' xmlns:z='{NAMESPACE}' z:AIGC = '{{}}'")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", old.decode())
    more: dict[str, Any] = {"pnginfo": info} if kind == "PNG" else {"xmp": old}
    raw = file(image(), kind, exif=exif, icc_profile=profile, **more)
    made = marked(raw, LABEL, WORDS)
    assert opened(made).info["icc_profile"] == profile
    one_label(made, tool)
    before, after = tool(raw), tool(made)
    assert after["IFD0:ImageDescription"] == "a description"
    assert (after["XMP-dc:Title"], after["XMP-q:Seed"], after["XMP-q:Note"]) == ("ein Titel", 42, "a note")
    changes = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    unlike = {
        k for k in changes if not k.startswith(("System:", "ExifTool:", "XMP-TC260:", "XMP-z:", "RIFF:", "XMP-x:"))
    }
    assert unlike <= {"PNG:Filter", "PNG:Compression", "File:EncodingProcess"}, unlike
    assert b"<!-- a remark -->" in made
    # All of a packet speaks of the same thing.
    assert {e.get(f"{{{RDF}}}about") for e in packets(made)[0].iter(f"{{{RDF}}}Description")} == {"uuid:1"}


def test_the_chunks_of_a_png_stay_where_they_may(tool: Tool) -> None:
    early = [
        chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        chunk(b"sBIT", b"\5\6\5"), chunk(b"tEXt", b"Software\0a generator"),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"w" * 5_000_000)),
        chunk(b"prVT", b"unsafe to copy"), chunk(b"prVt", b"safe to copy"), chunk(b"tIME", bytes(7)),
    ]  # fmt: skip
    raw = png_with(*early)
    damaged = chunk(b"tEXt", b"Comment\0x")[:-1] + b"?"
    late = chunk(b"iTXt", "Description\0\0\0zh\0\0描述".encode())
    raw = raw[:-12] + damaged + late + raw[-12:] + b"what stands behind the end"
    made = marked(raw, LABEL, WORDS)
    for kept in (early[0], early[1], early[2], early[3], early[4], early[6], late):
        assert made.count(kept) == 1
    for gone in (b"prVT", b"tIME", b"Comment", b"behind the end"):
        assert gone not in made
    # That a text stands behind the pixels is worth a remark to it.
    tags = tool(made, "-m")
    assert (tags["PNG:Gamma"], tags["PNG:Software"], tags["PNG:Description-zh"]) == (2.2, "a generator", "描述")
    assert labels(made) == [{"AIGC": LABEL}]
    # How many bits of a pixel count is no longer true of one of another form.
    palette = png_with(chunk(b"bKGD", b"\0"), raw=file(image("P"), "PNG"))
    assert b"bKGD" not in marked(palette, LABEL, WORDS)


def test_the_segments_of_a_jpeg_stay_but_for_other_pictures(tool: Tool) -> None:
    raw = jpeg_with(
        (0xE0, b"JFXX\0\x10a small copy"), (0xE2, b"MPF\0of several pictures"), (0xED, b"Photoshop 3.0\0"),
        (0xFE, b"a remark"), (0xE5, b"anything"),
        raw=file(image(), "JPEG", dpi=(300, 300)),
    )  # fmt: skip
    made = marked(raw + file(image("L"), "JPEG"), LABEL, WORDS)
    assert b"a small copy" not in made and b"MPF" not in made and made.count(b"\xff\xd8\xff") == 1
    tags = tool(made)
    assert (tags["File:Comment"], tags["JFIF:XResolution"]) == ("a remark", 300)
    assert b"\xff\xe5\x00\x0aanything" in made
    one_label(made, tool)


def test_a_thumbnail_that_shows_the_picture_without_its_mark_goes(tool: Tool, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    whole.write_bytes(file(image(), "JPEG"))
    small = tmp_path / "small.jpg"
    small.write_bytes(file(image("RGB", 80, 60), "JPEG"))
    call = [
        "exiftool",
        "-q",
        "-overwrite_original",
        f"-ThumbnailImage<={small}",
        "-Artist=A",
        "-UserComment=plain",
        str(whole),
    ]
    subprocess.run(call, check=True)
    assert "IFD1:ThumbnailImage" in tool(whole.read_bytes())
    tags = tool(marked(whole.read_bytes(), LABEL, WORDS))
    assert not [k for k in tags if k.startswith("IFD1:")]
    assert (tags["IFD0:Artist"], tags["ExifIFD:UserComment"]) == ("A", "plain")


def test_a_packet_that_leaves_no_room_in_a_jpeg_gives_way(tool: Tool) -> None:
    for length, stays in ((64_000, True), (64_900, False)):
        old = packet(f"<q:long>{'x' * length}</q:long>")
        made = marked(with_xmp("JPEG", old.replace(b" " * 200, b" " * (65_700 - len(old)))), LABEL, WORDS)
        one_label(made, tool)
        assert (b"xxxx" in made) == stays


def test_a_manifest_is_seen_and_does_not_outlive_the_pixels_it_binds(tool: Tool) -> None:
    manifest = b"\0\0\0\x1ejumb" + b"c2pa" * 5
    files = [
        png_with(chunk(b"caBX", manifest)),
        jpeg_with((0xEB, b"JP\0\1\0\0\0\1" + manifest)),
        webp_with((b"C2PA", manifest)),
    ]
    for raw in files:
        assert bound(raw)
        made = marked(raw, LABEL, WORDS)
        assert not bound(made) and b"c2pa" not in made
        one_label(made, tool)
    for raw in (file(image(), "PNG"), b"", b"no picture"):
        assert not bound(raw)


# ---- what others send


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
HOSTILE_XMP = {
    "cut short": packet(PROPERTY % said(OLD))[:-250],
    "entities": packet(PROPERTY % '{"Label":"&c;"}').replace(b"<x:xmpmeta", BOMB.encode() + b"<x:xmpmeta"),
    "an outer entity": packet(PROPERTY % '{"Label":"&e;"}').replace(
        b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><x:xmpmeta'
    ),
    "an unknown entity": packet(PROPERTY % '{"Label":"&e;"}'),
    "UTF-16": packet(PROPERTY % said(OLD)).decode().encode("utf-16"),
    "no UTF-8": packet(PROPERTY % '{"Label":"#"}').replace(b"#", b"\xff\xfe"),
    "nests": b"<a>" * 100_000,
    "nests that close": b"<a>" * 30_000 + b"</a>" * 30_000,
    "deep JSON": packet(PROPERTY % ('{"Label":' + "[" * 20_000 + "]" * 20_000 + "}")),
    "a huge value": packet(PROPERTY % said({**OLD, "ReservedCode1": "x" * 2049})),
    "huge JSON": packet(PROPERTY % said({**OLD, "Other": "x" * 200_000})),
    "numbers": packet(PROPERTY % '{"AIGC":{"Label":1}}'),
    "the same key twice": packet(PROPERTY % '{"AIGC":{"Label":"1","Label":"2"}}'),
    "a list": packet(PROPERTY % "[]"),
    "no label": packet(PROPERTY % '{"AIGC":{"ProduceID":"1"}}'),
    "a lone surrogate": packet(PROPERTY % '{"AIGC":{"Label":"\\ud800"}}'),
    "a line break": packet(PROPERTY % '{"AIGC":{"Label":"1\\n2"}}'),
    "another namespace": packet("<z:AIGX xmlns:z='urn:example:other'>" + said({"Label": "1"}, False) + "</z:AIGX>"),
    "nothing": b"",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    # A segment of a JPEG holds no more.
    [
        (name, kind)
        for name, held in HOSTILE_XMP.items()
        for kind in ("PNG", "JPEG", "WEBP")
        if len(held) < 65_000 or kind != "JPEG"
    ],
)
def test_hostile_metadata_is_no_label_and_leaves_none_behind(name: str, kind: str, tool: Tool) -> None:
    raw = with_xmp(kind, HOSTILE_XMP[name])
    assert read(raw) is None
    one_label(marked(raw, LABEL, WORDS), tool)


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0" + b'{"AIGC":' * 5000,
        b"UNICODE\0A",
        b"",
        b"\xff" * 40,
        b"JIS\0\0\0\0\0" + b'{"AIGC":{"Label":"1\xff"}}',
    ],
)
def test_a_hostile_comment_is_no_label(comment: bytes) -> None:
    raw = jpeg_with((0xE1, b"Exif\0\0" + exif_with(comment)))
    assert read(raw) is None
    assert b"AIGC" not in marked(raw, LABEL, WORDS).replace(b"TC260:AIGC", b"").replace(b"ns/AIGC", b"").replace(
        b'"AIGC"', b"", 1
    )


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x86\x92" * 40,
        exif_with(b"x" * 20)[:-10],
        b"AIGC",
    ],
)
def test_a_damaged_exif_goes(block: bytes, tool: Tool) -> None:
    for raw in (jpeg_with((0xE1, b"Exif\0\0" + block)), png_with(chunk(b"eXIf", block)), webp_with((b"EXIF", block))):
        assert read(raw) is None
        one_label(marked(raw, LABEL, WORDS), tool)


def moving(kind: str) -> bytes:
    frames = [image(), image("L").convert("RGB")]
    return file(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def bomb(width: int, height: int) -> bytes:
    return (
        PNG
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"x")
        + chunk(b"IEND", b"")
    )


UNUSABLE = {
    "nothing": b"",
    "text": b"no picture at all",
    "GIF": file(image("P"), "GIF"),
    "BMP": file(image(), "BMP"),
    "TIFF": file(image(), "TIFF"),
    "a moving PNG": moving("PNG"),
    "a moving WebP": moving("WEBP"),
    "a PNG too large": bomb(8001, 8000),
    "a PNG far too large": bomb(2**31 - 1, 2**31 - 1),
    "a PNG without pixels": bomb(0, 0),
    "a PNG with no picture in it": bomb(10, 10),
    "a WebP too large": b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8L"
    + struct.pack("<IBI", 17, 0x2F, 0x0FFFFFFF)
    + bytes(13),
    "a JPEG too large": file(image(), "JPEG").replace(struct.pack(">HH", 240, 320), struct.pack(">HH", 65000, 65000)),
    "a JPEG of many scans": file(image(), "JPEG", progressive=True) + b"\xff\xda" * 200,
    "a JPEG without a frame": b"\xff\xd8\xff\xda\0\2",
    **{
        f"{kind} cut at {part}": (lambda raw, part: raw[: int(len(raw) * part)])(file(image(), kind), part)
        for kind in ("PNG", "JPEG", "WEBP")
        for part in (0.02, 0.3, 0.9)
    },
    **{f"{kind} cut a byte short of its end": file(image(), kind)[:-1] for kind in ("PNG", "WEBP")},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_still_picture_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        marked(UNUSABLE[name], LABEL, WORDS)
    assert caught.value.code == "upstream_protocol_error"
    assert caught.value.__cause__ is None
    assert "no picture at all" not in str(caught.value)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(sorted(SOURCES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_damaged_bytes_are_read_or_refused_and_nothing_else_escapes(
    source: str, flips: list[tuple[float, int]], part: float
) -> None:
    raw = bytearray(SOURCES[source])
    for place, value in flips:
        # Most of a file is pixels; the start is where what is said of it stands.
        raw[int(place * place * len(raw))] = value
    damaged = bytes(raw[: max(int(len(raw) * part), 1)] if part < 0.5 else raw)
    found = read(damaged)
    assert found is None or "Label" in found
    bound(damaged)
    with suppress(UpstreamError):
        made = marked(damaged, LABEL, WORDS)
        assert read(made) == LABEL
        assert opened(made).size == opened(marked(made, LABEL, WORDS)).size


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([PNG, b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 "]), st.binary(max_size=80))
def test_any_bytes_are_refused(start: bytes, rest: bytes) -> None:
    assert read(start + rest) is None
    with pytest.raises(UpstreamError):
        marked(start + rest, LABEL, WORDS)
