"""Writes the word to the operator: by compare-and-swap, so that a word of another history is never put on top."""

from collections.abc import Mapping

from taskdist.kube import CONFIGMAPS, ApiError, Client, Obj, Unanswered, archived, version_of


class Disputed(Exception):
    """Somebody else has written the ConfigMap, or etcd was restored: all has to be listed before a word is true."""


class Word:
    """The installation's ConfigMap.

    Args:
        installation: the name of the operator's Lease.
    """

    def __init__(self, client: Client, namespace: str, installation: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = archived.object_name(installation)
        self._version: str | None = None
        # What it may say, if the version is not known: what was read or written last, and what may have been.
        self._possible: list[str] | None = None

    async def write(self, marks: Mapping[str, int]) -> None:
        """Say so.

        Raises:
            Disputed: it does not say what it was left with.
            KubeError: it may be written or not. Writing it again is safe.
        """
        if self._version is None:
            await self._read()
        body = archived.body(self._name, marks, self._version or "")
        said = _said(body)
        try:
            if self._version:
                written = await self._client.patch(CONFIGMAPS, self._name, body, self._namespace)
            else:
                written = await self._client.create(CONFIGMAPS, body, self._namespace)
        except ApiError as error:
            if error.is_conflict or error.is_already_exists or error.is_not_found:
                self._version = self._possible = None
                raise Disputed(str(error)) from error
            if error.is_server_fault:
                self._doubtful(said)
            raise
        except Unanswered:
            self._doubtful(said)
            raise
        self._version, self._possible = version_of(written), [said]

    def _doubtful(self, said: str) -> None:
        self._version = None
        self._possible = [*(self._possible or [""]), said]

    async def _read(self) -> None:
        try:
            found = await self._client.get(CONFIGMAPS, self._name, self._namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            found = None
        said = "" if found is None else _said(found)
        if self._possible is not None and said not in self._possible:
            self._possible = None
            raise Disputed("the ConfigMap does not say what was written last")
        self._version = "" if found is None else version_of(found)
        self._possible = [said]


def _said(obj: Obj) -> str:
    data = obj.get("data")
    return str(sorted(data.items())) if isinstance(data, dict) else ""
