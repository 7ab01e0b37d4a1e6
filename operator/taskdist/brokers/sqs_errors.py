"""Errors of SQS in words, with what mends them. No I/O."""

import re
from enum import StrEnum
from typing import Final


class Why(StrEnum):
    """What is amiss, as the reasons of sources and sinks name it."""

    BROKER_UNREACHABLE = "BrokerUnreachable"
    SECRET_UNUSABLE = "SecretUnusable"


class Unusable(Exception):
    """SQS cannot be used as it is named, or not now."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


class Refused(Unusable):
    """SQS answered, and refused what it was asked. `code`: its name of the reason, without a prefix."""

    def __init__(self, unusable: Unusable, code: str) -> None:
        super().__init__(unusable.why, str(unusable))
        self.code = code


# Answers by which SQS, or the keys that it encrypts with, are asked too often.
THROTTLED: Final = (
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "KmsThrottled",
    "TooManyRequestsException",
    "RequestLimitExceeded",
)
# Answers by which a message as it is sent is not taken.
NOT_TAKEN: Final = ("InvalidParameterValue", "InvalidMessageContents", "InvalidAttributeValue", "BatchRequestTooLong")
_NO_QUEUE: Final = ("QueueDoesNotExist", "NonExistentQueue", "ResourceNotFoundException", "QueueDeletedRecently")
_DENIED: Final = ("AccessDenied", "AccessDeniedException", "NotAuthorized", "AuthorizationError")
_UNKNOWN_KEY: Final = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "IncompleteSignature",
)
_SIGNATURE: Final = ("SignatureDoesNotMatch", "InvalidSignatureException")
_EXPIRED: Final = ("ExpiredToken", "ExpiredTokenException")
_CLOCK: Final = ("RequestTimeTooSkewed", "RequestExpired")
_CLOCK_WORDS: Final = ("signature expired", "signature not yet current")
_ADDRESS: Final = ("InvalidAddress", "credential should be scoped to a valid region")


# The form of an error's name; the number of an answer stands in its place where it has none.
_NAME: Final = re.compile("[A-Za-z][A-Za-z0-9_.-]{0,99}", re.ASCII)
# What is needed of a queue's key, where it is more than to decrypt.
_KEY_RIGHTS: Final = {"SendMessage": "kms:GenerateDataKey and kms:Decrypt"}
# What is asked where the process's identity is a role.
ROLE: Final = "AssumeRole"


def trouble_of(code: str, message: str, operation: str, queue: str, region: str) -> Unusable:
    """Return what is amiss, and what mends it. `code`: without a prefix."""
    # Only the first line: after it AWS quotes the request, with the session's token. What a terminal obeys is left out.
    line = (message.strip().splitlines() or [""])[0].rstrip(".")[:500]
    name, said = code, "".join(each if each.isprintable() else " " for each in line)
    unreachable, secret = Why.BROKER_UNREACHABLE, Why.SECRET_UNUSABLE
    if not _NAME.fullmatch(name):
        # Its words are not repeated: a source may name the endpoint of somebody who answers to this process only.
        number = f" (HTTP {name})" if name.isdecimal() else ""
        return Unusable(
            unreachable, f"{operation} on {queue}: the answer is none of SQS{number}: mend spec.sqs.endpoint"
        )
    if operation.startswith(ROLE):
        return Unusable(
            secret, f"this process cannot take its role at AWS: mend the role or its trust ({name}: {said})"
        )
    if name in _NO_QUEUE:
        return Unusable(
            unreachable, f"there is no queue {queue} in {region}: create it, or mend the address and the region"
        )
    if name in _ADDRESS or any(each in said.lower() for each in _ADDRESS):
        return Unusable(unreachable, f"queue {queue} is not in {region}: mend spec.sqs.region or the address ({said})")
    if name in _CLOCK or any(each in said.lower() for each in _CLOCK_WORDS):
        return Unusable(unreachable, f"the clock of this process's node is wrong: set it ({said})")
    if name in _DENIED:
        return Unusable(unreachable, f"sqs:{operation} on {queue} is not allowed: allow it in the policy ({said})")
    if name in _UNKNOWN_KEY:
        return Unusable(secret, f"the access key is not known: mend AWS_ACCESS_KEY_ID ({said})")
    if name in _SIGNATURE:
        return Unusable(secret, f"the secret access key is not that of the access key: mend the Secret ({said})")
    if name in _EXPIRED:
        return Unusable(secret, f"the session token has expired: write a new one into the Secret ({said})")
    if name.startswith("Kms"):
        rights = _KEY_RIGHTS.get(operation, "kms:Decrypt")
        return Unusable(unreachable, f"the queue's key cannot be used: allow {rights} on it ({name}: {said})")
    if name == "OverLimit":
        return Unusable(
            unreachable, f"too many messages of {queue} are in flight: other consumers do not delete them ({said})"
        )
    return Unusable(unreachable, f"{operation} on {queue}: {name}: {said}"[:700])
