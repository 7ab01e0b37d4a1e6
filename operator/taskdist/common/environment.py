"""Settings of a process: TASKDIST_… variables, read once at the start and refused by name where they make no sense."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass


class SettingsError(Exception):
    """A setting is missing, makes no sense or contradicts another; the message names it and says what to set."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Values of variables within their bounds. An empty variable is one that is not set."""

    env: Mapping[str, str]

    def needed(self, name: str, hint: str) -> str:
        value = self.env.get(name, "")
        if not value:
            raise SettingsError(f"{name} is not set: {hint}")
        return value

    def seconds(self, name: str, default: float, least: float, most: float) -> float:
        value = self.env.get(name, "")
        if not value:
            return default
        try:
            parsed = float(value)
        except ValueError:
            parsed = math.nan
        if not least <= parsed <= most:  # true for no NaN
            raise SettingsError(f"{name} is {_shown(value)}: set it to a number of seconds from {least:g} to {most:g}")
        return parsed

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.env.get(name, "")
        if not value:
            return default
        try:
            parsed = int(value)
        except ValueError:
            parsed = least - 1
        if not least <= parsed <= most:
            raise SettingsError(f"{name} is {_shown(value)}: set it to a whole number from {least} to {most}")
        return parsed

    def ports(self, defaults: Mapping[str, int]) -> dict[str, int]:
        """Return the ports of a process's servers, by variable: no two are one, as all listen on one address."""
        found = {name: self.whole(name, default, 1, 65535) for name, default in defaults.items()}
        taken: dict[int, str] = {}
        for name, port in found.items():
            other = taken.setdefault(port, name)
            if other != name:
                raise SettingsError(f"{name} is {port}, and so is {other}: set one of them to another port")
        return found

    def together(self, one: str, other: str, purpose: str) -> tuple[str, str]:
        """Return two values of which none makes sense without the other."""
        values = self.env.get(one, ""), self.env.get(other, "")
        if bool(values[0]) != bool(values[1]):
            there, missing = (one, other) if values[0] else (other, one)
            raise SettingsError(f"{there} is set and {missing} is not: set both {purpose}, or none")
        return values

    def flag(self, name: str) -> bool:
        return self.one_of(name, "false", ("true", "false")) == "true"

    def names(self, name: str) -> tuple[str, ...]:
        """Return the names of a comma-separated list, each once; none where it is empty."""
        return tuple(dict.fromkeys(each.strip() for each in self.env.get(name, "").split(",") if each.strip()))

    def names_among(self, name: str, others: str, beside: Collection[str] = ()) -> tuple[str, ...]:
        """Return the names of a list, all of them in another list too or `beside` it; an empty other list has all."""
        found, known = self.names(name), self.names(others)
        if known and (beyond := [each for each in found if each not in known and each not in beside]):
            raise SettingsError(
                f"{name} names {beyond[0]}, which {others} does not: add it there, or leave it out here"
            )
        return found

    def one_of(self, name: str, default: str, words: tuple[str, ...]) -> str:
        value = self.env.get(name, "") or default
        if value.lower() not in words:
            choice = f"{', '.join(words[:-1])} or {words[-1]}"
            raise SettingsError(f"{name} is {_shown(value)}: set it to {choice}")
        return value.lower()

    def address(self, name: str, default: str) -> str:
        value = self.env.get(name, "") or default
        host, _, port = value.rpartition(":")
        # Five digits at the most: int() refuses thousands of them with an error of its own.
        if not host or not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= 65535:
            raise SettingsError(f"{name} is {_shown(value)}: set it to host:port, as it is dialled")
        return value


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else f"{value[:80]}…")
