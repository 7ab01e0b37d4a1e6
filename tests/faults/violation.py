"""The one error that the checker raises."""


class Violation(AssertionError):
    """A promise was broken. `kind` names it in a word."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
