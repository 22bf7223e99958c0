"""A sequence classifier of Hugging Face's transformers on this machine: {"label": score, ...}, with the labels of its own configuration.
One is harmful from the threshold of model.toml on. A label that means harmless stands in model.toml as well, with no category."""

from __future__ import annotations

from app.guards.formats.asking import Opinion, Request, document, scores, whole
from app.modelfile import GuardFile
from app.types import Direction


class Classifier:
    """AutoModelForSequenceClassification, of whatever architecture."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        return (Request("scores", text),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        scored = scores(document(said))
        whole(scored, file)
        return {label: score for label, score in scored.items() if score >= file.threshold}
