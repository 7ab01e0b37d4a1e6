"""Settings of the object store, the same for agents and clients: TASKDIST_OBJECTS_… variables.

Credentials and region are none of them: the S3 client finds them as AWS does (variables, a web identity token, the
pod's or the machine's role).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from taskdist.api.objects import MAX_INLINE_BYTES, MAX_OBJECT_BYTES
from taskdist.common.environment import Environment, SettingsError
from taskdist.objects.places import Place

URL = "TASKDIST_OBJECTS_URL"
ENDPOINT = "TASKDIST_OBJECTS_ENDPOINT"
CA_FILE = "TASKDIST_OBJECTS_CA_FILE"
MAX_BYTES = "TASKDIST_OBJECTS_MAX_BYTES"
TIMEOUT = "TASKDIST_OBJECTS_TIMEOUT_SECONDS"

# A payload is held in memory as a whole, and as what it is parsed to.
DEFAULT_MAX_BYTES = 16 * 2**20
DEFAULT_TIMEOUT_SECONDS = 60.0

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9/_.=+@-]{0,500}))?")


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """Where objects stand and how much of one is taken. `endpoint` empty: AWS. `timeout`: seconds for one transfer."""

    place: Place
    endpoint: str = ""
    ca_file: Path | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    timeout: float = DEFAULT_TIMEOUT_SECONDS

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "ObjectSettings | None":
        """Return what the variables say; None if they name no store. Raises SettingsError."""
        url = env.get(URL, "")
        if not url:
            others = [name for name in (ENDPOINT, CA_FILE) if env.get(name)]
            if others:
                raise SettingsError(f"{others[0]} is set and {URL} is not: set {URL} to s3://BUCKET/PREFIX")
            return None
        found = _URL.fullmatch(url)
        prefix = (found[2] or "").strip("/") if found else ""
        if found is None or not Place.is_plain(prefix):
            raise SettingsError(f"{URL} is {url[:80]!r}: set it to s3://BUCKET or s3://BUCKET/PREFIX")
        read = Environment(env)
        return cls(
            Place(found[1], prefix),
            _endpoint(env.get(ENDPOINT, "")),
            _file(env.get(CA_FILE, "")),
            read.whole(MAX_BYTES, DEFAULT_MAX_BYTES, MAX_INLINE_BYTES, MAX_OBJECT_BYTES),
            read.seconds(TIMEOUT, DEFAULT_TIMEOUT_SECONDS, 1, 3600),
        )


def most_bytes(env: Mapping[str, str]) -> int:
    """Return how large a payload or result may be, by value or by reference, in a process of these variables."""
    try:
        settings = ObjectSettings.from_env(env)
    except SettingsError:  # whoever started the process has refused it, or has no need of a store
        settings = None
    return MAX_INLINE_BYTES if settings is None else settings.max_bytes


def _endpoint(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or parts.path.strip("/") or parts.query:
        raise SettingsError(f"{ENDPOINT} is {text[:80]!r}: set it to a URL such as https://s3.example.com:9000")
    return text.rstrip("/")


def _file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise SettingsError(f"{CA_FILE} is {text[:200]!r}: there is no such file; name the authorities' certificates")
    return path
