"""The AIGC property of an XMP packet: read, and put in the place of an earlier one.

Law: no packet is trusted: one with a document type, and so with entities, is not read at all; nothing else of a packet is changed, not by
a byte, and one that cannot be read is replaced whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"

_PROPERTY = f"{NAMESPACE} AIGC"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LONGEST = 1 << 20
"""Bytes of a packet that are read at most."""
_DEEPEST, _MOST = 100, 16
"""Elements in each other, and values of the property: no packet needs more of them."""
_BOM = b"\xef\xbb\xbf"
_TAG = re.compile(rb"""<[^\s/>]+(?:\s+[^\s=/>]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*(?:"[^"]*"|'[^']*')""")
_FRESH = (
    f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
).encode()


class _Packet:
    """What expat finds in a packet: the property's values, where they stand, and where another may be put. Raises ValueError."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw.strip(b"\0").removeprefix(_BOM)
        self.values: list[str] = []
        self.cuts: list[tuple[int, int]] = []
        self.end: int | None = None
        """Where the RDF ends: what is put there is a part of it."""
        self.about = ""
        self._attributes: list[tuple[int, bytes]] = []
        self._open: list[int] = []
        self._text: list[str] | None = None
        self._inside = 0
        self._parser = parser = expat.ParserCreate("UTF-8", " ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartElementHandler = self._starts
        parser.EndElementHandler = self._ends
        parser.CharacterDataHandler = self._says
        parser.StartDoctypeDeclHandler = _refuse
        if len(self.raw) > _LONGEST:
            raise ValueError("an XMP packet that is too long")
        try:
            parser.Parse(self.raw, True)
        except expat.ExpatError:
            raise ValueError("no XMP") from None
        self.cuts += [self._attribute(at, name) for at, name in self._attributes]

    def _starts(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(self._parser.CurrentByteIndex)
        if len(self._open) > _DEEPEST or len(self.values) > _MOST:
            raise ValueError("an XMP packet without end")
        if self._text is not None:
            self._inside += 1
            return
        if _plain(name) == _PROPERTY:
            self._text, self._inside = [], 0
            return
        for key, value in attributes.items():
            if _plain(key) == _PROPERTY:
                self.values.append(value)
                self._attributes.append((self._open[-1], f"{key.split(' ')[2]}:AIGC".encode()))
            elif _plain(key) == f"{_RDF} about":
                self.about = self.about or value

    def _says(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _ends(self, name: str) -> None:
        start = self._open.pop()
        if self._text is None:
            if _plain(name) == f"{_RDF} RDF" and self.end is None and not self._tag(start).endswith(b"/>"):
                self.end = self._parser.CurrentByteIndex
        elif self._inside:
            self._inside -= 1
        else:
            self.values.append("".join(self._text))
            self._text = None
            # At the end of an element without content expat stands behind it.
            tag = self._tag(start)
            end = start + len(tag) if tag.endswith(b"/>") else self.raw.index(b">", self._parser.CurrentByteIndex) + 1
            self.cuts.append((start, end))

    def _tag(self, at: int) -> bytes:
        """The start tag at `at`."""
        found = _TAG.match(self.raw, at)
        return found[0] if found else b""

    def _attribute(self, at: int, name: bytes) -> tuple[int, int]:
        """Where the attribute stands in the tag at `at`."""
        found = _ATTRIBUTE.finditer(self.raw, at, at + len(self._tag(at)))
        return next((a.span() for a in found if a[1] == name), (at, at))

    def with_value(self, value: str) -> bytes:
        """The packet with this one value."""
        if self.end is None:
            raise ValueError("a packet without RDF")
        opening = (
            f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about={quoteattr(self.about)} xmlns:TC260="{NAMESPACE}">'
        ).encode()
        closing = b"</rdf:Description>"
        # What an earlier label of ours leaves.
        before = self._kept(0, self.end).replace(opening + closing, b"")
        label = f"<TC260:AIGC>{escape(value)}</TC260:AIGC>".encode()
        return before + opening + label + closing + self._kept(self.end, len(self.raw))

    def _kept(self, start: int, end: int) -> bytes:
        """A stretch of the packet without the property."""
        edges = [start, *(edge for cut in sorted(self.cuts) if start <= cut[0] < end for edge in cut), end]
        return b"".join(self.raw[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def _plain(name: str) -> str:
    """Namespace and name, without the prefix."""
    return " ".join(name.split(" ")[:2])


def _refuse(*_: object) -> None:
    raise ValueError("an XMP packet with a document type")


def _unpadded(raw: bytes) -> bytes:
    """The packet without the room that it keeps before its end for longer values."""
    content, end, rest = raw.rpartition(b"<?xpacket end")
    return content.rstrip() + end + rest


def values(raw: bytes) -> list[str]:
    """The values of the property; none if the packet cannot be read."""
    try:
        return _Packet(raw).values
    except ValueError:
        return []


def with_value(raw: bytes | None, value: str, room: int) -> bytes:
    """The packet with this value of the property and no other, in `room` bytes at most: what else stands in it gives way if it has to."""
    for old in (raw, raw and _unpadded(raw), _FRESH):
        if old:
            try:
                made = _Packet(old).with_value(value)
                if len(made) <= room and _Packet(made).values == [value]:
                    return made
            except ValueError:
                continue
    raise ValueError("no room for the label")
