"""The metrics that all such processes have: who leads, and how each object says that it is."""

from prometheus_client import CollectorRegistry, Gauge

from taskdist.elected.keeper import Key


class ReadyGauge:
    """A gauge of each object's condition Ready, by the reason in its status.

    Args:
        noun: the name of the label that holds an object's name.
    """

    def __init__(self, name: str, text: str, noun: str, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(name, text, ("namespace", noun, "reason"), registry=registry)
        self._reasons: dict[Key, str] = {}

    def said(self, key: Key, ready: bool, reason: str) -> None:
        """The object says this of itself now."""
        former = self._reasons.get(key)
        if former is not None and former != reason:
            self._gauge.remove(*key, former)
        self._reasons[key] = str(reason)
        self._gauge.labels(*key, str(reason)).set(int(ready))

    def gone(self, key: Key) -> None:
        """The object is there no more."""
        former = self._reasons.pop(key, None)
        if former is not None:
            self._gauge.remove(*key, former)
