"""Sluice as `serve` runs it, in one process."""

from app.main import create_app
from app.settings import read

app = create_app(read())
