"""Whether a new Task is one too many for its queue: bounds on how many wait, and on the bytes that their payloads take.

Owns the words in which a Task is turned away. Refuses to count: accounts are kept by the limits.
"""

from taskdist.core.limits.blockers import Account


def over_waiting(account: Account) -> str | None:
    """Say which bound on waiting Tasks is exceeded; None if none is."""
    book = account.of
    if book.waiting <= book.most_waiting and account.waiting <= book.tenant_most_waiting:
        return None
    rules = book.rules
    full = rules.overflow.high_water if rules.overflow is not None else None
    if rules.quota.waiting is not None and book.waiting > rules.quota.waiting:
        return f"{book} holds {book.waiting} waiting Tasks, more than its spec.quota.waiting of {rules.quota.waiting}."
    if full is not None and book.waiting > full:
        return f"{book} holds {book.waiting} waiting Tasks, more than its spec.overflow.highWater of {full}."
    most = rules.tenant_quota.waiting
    if most is not None and account.waiting > most:
        return f"{account} holds {account.waiting} waiting Tasks, more than its spec.quota.perTenant.waiting of {most}."
    return None


def over_payload(account: Account) -> str | None:
    """Say which bound on payload bytes is exceeded; None if none is."""
    book = account.of
    most = book.bounds.payload_bytes
    if most is not None and book.payload_bytes > most:
        return f"{book} holds {book.payload_bytes} bytes of payload, more than its {book.path}.payloadBytes of {most}."
    most = account.bounds.payload_bytes
    if most is not None and account.payload_bytes > most:
        path = f"{account.path}.payloadBytes"
        return f"{account} holds {account.payload_bytes} bytes of payload, more than its {path} of {most}."
    return None
