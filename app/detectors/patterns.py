from app.types import Scan, Scope


class Patterns:
    name = "patterns"

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        return Scan([], len(text))
