"""How families of guard models are asked, and how their answers read: the list. One place to add one: a file here and a line in
FORMATS. Law: pure; prompts and outputs are those of the model cards, named at each; an answer that does not read so raises
GuardError("garbage"), and is never taken for a pass.
"""

from __future__ import annotations

from app.errors import ModelError
from app.guards.formats.asking import Format, Opinion, Request
from app.guards.formats.hook import Hook
from app.guards.formats.llama_guard import LlamaGuard
from app.guards.formats.moderations import Moderations
from app.guards.formats.qwen3guard import Gen, Stream
from app.guards.formats.safeguard import Safeguard
from app.guards.formats.sequence import Classifier
from app.guards.formats.shieldgemma import ShieldGemma

__all__ = ["FORMATS", "Format", "Opinion", "Request", "of"]

FORMATS: dict[str, Format] = {
    "qwen3guard": Gen(),
    "qwen3guard_stream": Stream(),
    "llama_guard": LlamaGuard(),
    "shieldgemma": ShieldGemma(),
    "safeguard": Safeguard(),
    "moderations": Moderations(),
    "hook": Hook(),
    "sequence": Classifier(),
}
"""By the name that stands in model.toml."""


def of(name: str) -> Format:
    """Raises ModelError for a name that is none."""
    if name not in FORMATS:
        raise ModelError(f"format: {name!r} is none of {', '.join(FORMATS)}")
    return FORMATS[name]
