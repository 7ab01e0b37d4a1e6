"""Where objects stand: keys by content, and which of them may be read. Pure.

    s3://BUCKET/PREFIX/NAMESPACE/payloads/SHA256
    s3://BUCKET/PREFIX/NAMESPACE/results/TASK-UID/ATTEMPT/SHA256

What is put twice is the same object. A result's key is of one attempt only: no other attempt writes it, whatever
becomes of the lease. A reference is anybody's word who may create a Task, so only what is below the own prefix and the
Task's namespace is read: an agent's rights must not become those of whoever writes to it.
"""

import hashlib
from dataclasses import dataclass

from taskdist.protocol.messages import LeaseName, ObjectRef


@dataclass(frozen=True, slots=True)
class Place:
    """The bucket and prefix of an installation. The prefix has no slash at its ends; it may be empty."""

    bucket: str
    prefix: str = ""

    @staticmethod
    def is_plain(path: str) -> bool:
        """Whether each part of a path is a name, and none leads elsewhere."""
        return not path or all(part not in ("", ".", "..") for part in path.split("/"))

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def payload(self, namespace: str, body: bytes) -> ObjectRef:
        """The reference that a payload gets."""
        return self._reference(f"{namespace}/payloads", body)

    def result(self, namespace: str, lease: LeaseName, body: bytes) -> ObjectRef:
        """The reference that the result of this attempt gets."""
        return self._reference(f"{namespace}/results/{lease.task_uid}/{lease.attempt}", body)

    def _reference(self, folder: str, body: bytes) -> ObjectRef:
        digest = hashlib.sha256(body).hexdigest()
        return ObjectRef(f"{self.url}/{folder}/{digest}", len(body), digest)

    def below(self, namespace: str) -> str:
        """Return the beginning of all references of a namespace."""
        return f"{self.url}/{namespace}/"

    def key(self, ref: ObjectRef, namespace: str) -> str:
        """The key in the bucket; empty if it is not among what this namespace may read."""
        start = f"s3://{self.bucket}/"
        if not ref.uri.startswith(self.below(namespace)) or not self.is_plain(ref.uri.removeprefix(start)):
            return ""
        return ref.uri.removeprefix(start)
