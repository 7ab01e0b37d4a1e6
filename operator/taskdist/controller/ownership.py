"""Ownership of namespaces among installations that want the same ones: each is served by one of them.

The ConfigMap with the certificate authorities' bundle says whose a namespace is. Whoever finds another's asks: it
writes a mark on the ConfigMap. The leader of a living owner takes the mark off within a second or two, which is its
answer: the namespace is left alone, that is said, and it is asked for again later. Where nobody answers, the owner is
gone, and the namespace is taken.

A leadership serves all namespaces but those that were another's when it began. When that changes, it is begun anew.
Anybody who may write ConfigMaps can disturb their own namespace so, and cost the others a change of leadership now and
then, no more.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from taskdist.api import GROUP
from taskdist.controller.pods import CA_CONFIGMAP
from taskdist.controller.trust import CA_KEY, INSTALLATION_ANNOTATION, is_other, owner_of
from taskdist.kube import CONFIGMAPS, ApiError, Client, Informer, KubeError

# The mark: the installation that asks whether the owner still serves the namespace.
ASKED_ANNOTATION = f"{GROUP}/asked-by"
# How often marks and their answers are looked for, in seconds.
LOOK_SECONDS = 1.0
# How long an answer is waited for, in seconds: longer than a change of the owner's leader takes.
WAIT_SECONDS = 20.0
# After an answer: how long until the same is asked again, in seconds.
AGAIN_SECONDS = 30.0
# The least time between two leaderships that are begun anew for this, in seconds: it doubles up to the most, and is
# what it was after a time of calm.
PAUSE_SECONDS, MOST_PAUSE_SECONDS, CALM_SECONDS = 30.0, 600.0, 3600.0
# How often it is said again that a namespace is another's, in seconds.
TELL_SECONDS = 600.0
IN_FLIGHT = 8
# An annotation may be of any length; in words it is cut, in characters.
MOST_NAME = 200

_log = structlog.get_logger("taskdist.ownership")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The ConfigMap of one namespace: whose it is, and who asks. Empty: nobody's, nobody."""

    namespace: str
    version: str
    owner: str
    asked_by: str


def seen_bundle(obj: Object) -> Bundle:
    """Read what the ConfigMap says."""
    metadata = obj["metadata"]
    asked_by = (metadata.get("annotations") or {}).get(ASKED_ANNOTATION, "")
    return Bundle(metadata["namespace"], metadata["resourceVersion"], owner_of(obj), asked_by)


@dataclass(slots=True)
class _Question:
    """A question for one namespace, asked at `asked`. `answered` is when its owner was seen to live."""

    owner: str
    asked: float
    answered: float | None = None


class Ownership:
    """Asks for namespaces that are another's, and answers for its own, while this process leads.

    Args:
        view: the ConfigMaps of all watched namespaces.
        installation: this one's name.
        bundle: what agents of a namespace that is taken are to trust.
        may_act: whether leadership is sure now; asked before each write.
        begin_anew: ends the present leadership, for another one; told why.
        tell: makes Events, in this namespace, of what a user should know.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        client: Client,
        view: Informer[Bundle],
        installation: str,
        bundle: Callable[[], bytes],
        may_act: Callable[[], bool],
        begin_anew: Callable[[str], None],
        tell: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._view = view
        self._installation = installation
        self._bundle = bundle
        self._may_act = may_act
        self._begin_anew = begin_anew
        self._tell = tell
        self._clock = clock
        # What this leadership leaves alone. Replaced as a whole: the reconciling thread reads it too.
        self._others: frozenset[str] = frozenset()
        self._questions: dict[str, _Question] = {}
        # By namespace: which other one was told of, and until when that is enough.
        self._told: dict[str, tuple[str, float]] = {}
        self._free_at, self._pause = -math.inf, PAUSE_SECONDS
        self._failure = ""

    def serves(self, namespace: str) -> bool:
        """Whether the present leadership serves the namespace. From any thread."""
        return namespace not in self._others

    def problem(self, wanted: Iterable[str]) -> str | None:
        """Say why none of the namespaces that have work for agents is served; None where one is, or there are none."""
        namespaces = sorted(set(wanted))
        if not namespaces or not self._others.issuperset(namespaces):
            return None
        bundle = self._view.store.find(namespaces[0], CA_CONFIGMAP)
        if bundle is None or not is_other(bundle.owner, self._installation):
            return f"about to serve namespace {namespaces[0]}"
        return self._words(bundle)

    def begin(self) -> None:
        """A leadership begins: it leaves alone what is another's now."""
        self._questions.clear()
        self._others = frozenset(self._foreign())

    async def run(self) -> None:
        """Ask and answer until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Do what is due now."""
        asked = [b for b in self._view.store if b.owner == self._installation and b.asked_by]
        await self._each(self._answer, asked)
        foreign = self._foreign()
        await self._ask([foreign[namespace] for namespace in sorted(self._others & foreign.keys())])
        self._compare()

    # -- within ----------------------------------------------------------------------------------------------------

    def _foreign(self) -> dict[str, Bundle]:
        return {b.namespace: b for b in self._view.store if is_other(b.owner, self._installation)}

    def _compare(self) -> None:
        """Begin a new leadership where this one serves what it must not, or not what it may."""
        foreign = self._foreign()
        lost, won = foreign.keys() - self._others, self._others - foreign.keys()
        now = self._clock()
        if not (lost or won) or now < self._free_at:
            return
        self._pause = PAUSE_SECONDS if now >= self._free_at + CALM_SECONDS else min(2 * self._pause, MOST_PAUSE_SECONDS)
        self._free_at = now + self._pause
        if lost:
            bundle = foreign[min(lost)]
            why = f"namespace {bundle.namespace} has been taken by another installation, {short(bundle.owner)}"
        else:
            why = f"namespace {min(won)} is served by no other installation any more"
        self._begin_anew(why)

    async def _ask(self, bundles: list[Bundle]) -> None:
        now = self._clock()
        new, silent = list[Bundle](), list[Bundle]()
        for bundle in bundles:
            question = self._questions.get(bundle.namespace)
            if question is None or question.owner != bundle.owner:
                new.append(bundle)
            elif question.answered is not None:
                if now >= question.answered + AGAIN_SECONDS:
                    new.append(bundle)
            elif not bundle.asked_by:
                question.answered = now
                self._leave(bundle)
            elif now >= question.asked + WAIT_SECONDS:
                silent.append(bundle)
        await self._each(self._take, silent)
        marked = await self._each(self._mark, new)
        # As one, so that they are taken as one: each time the leadership is begun anew.
        now = self._clock()
        for bundle in marked:
            self._questions[bundle.namespace] = _Question(bundle.owner, now)

    async def _mark(self, bundle: Bundle) -> bool:
        # Whose mark it is that goes unanswered makes no difference.
        return bool(bundle.asked_by) or await self._write(bundle, {ASKED_ANNOTATION: self._installation})

    async def _answer(self, bundle: Bundle) -> bool:
        if not await self._write(bundle, {ASKED_ANNOTATION: None}):
            return False
        if self._is_news(bundle.namespace, bundle.asked_by):
            _log.warning(
                "another installation wants to serve the namespace, and was told that this one does",
                namespace=bundle.namespace,
                other=short(bundle.asked_by),
                this=short(self._installation),
            )
        return True

    async def _take(self, bundle: Bundle) -> bool:
        change = {INSTALLATION_ANNOTATION: self._installation, ASKED_ANNOTATION: None}
        if not await self._write(bundle, change, {CA_KEY: self._bundle().decode()}):
            return False
        _log.warning(
            "the namespace was served by another installation, which is gone: it is taken over. Agents that the other "
            "made cannot connect to this one: delete their pods",
            namespace=bundle.namespace,
            other=short(bundle.owner),
            this=short(self._installation),
        )
        return True

    def _leave(self, bundle: Bundle) -> None:
        """Leave the namespace to its owner, which has answered, and say so."""
        if self._is_news(bundle.namespace, bundle.owner):
            words = self._words(bundle)
            _log.error(words, namespace=bundle.namespace, other=short(bundle.owner), this=short(self._installation))
            self._tell(bundle.namespace, words)

    def _is_news(self, namespace: str, other: str) -> bool:
        """Whether to say it of this other installation: not each time it is asked."""
        now = self._clock()
        told, enough_until = self._told.get(namespace, ("", now))
        if told == other and now < enough_until:
            return False
        self._told[namespace] = other, now + TELL_SECONDS
        return True

    def _words(self, bundle: Bundle) -> str:
        question = self._questions.get(bundle.namespace)
        other, this = short(bundle.owner), short(self._installation)
        if question is None or question.answered is None:
            return f"namespace {bundle.namespace} is another installation's, {other}: it is asked whether it still runs"
        return (
            f"namespace {bundle.namespace} is served by another installation, {other}: this one, {this}, leaves it "
            "alone, and serves it once the other is gone. Uninstall one of them, or set their watchNamespaces apart"
        )

    async def _each(self, do: Callable[[Bundle], Awaitable[bool]], bundles: Iterable[Bundle]) -> list[Bundle]:
        """Return those for which it was done."""
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(bundle: Bundle) -> list[Bundle]:
            async with gate:
                return [bundle] if await do(bundle) else []

        return [bundle for each in await asyncio.gather(*map(one, bundles)) for bundle in each]

    async def _write(self, bundle: Bundle, said: dict[str, str | None], data: dict[str, str] | None = None) -> bool:
        """Change the ConfigMap if it is what was seen; False where it is not, or nobody answers."""
        if not self._may_act():
            return False
        change: Object = {"metadata": {"resourceVersion": bundle.version, "annotations": said}}
        if data is not None:
            change["data"] = data
        try:
            answer = await self._client.patch(CONFIGMAPS, CA_CONFIGMAP, change, bundle.namespace)
        except KubeError as error:
            expected = isinstance(error, ApiError) and (error.is_conflict or error.is_not_found)
            if not expected and str(error) != self._failure:
                self._failure = str(error)
                _log.warning(
                    "the namespace's ConfigMap could not be written", namespace=bundle.namespace, why=str(error)
                )
            return False
        self._view.apply_own(answer)
        return True


def short(installation: str) -> str:
    """Name an installation as its users know it: namespace and release, or Lease."""
    return installation.removeprefix(f"{GROUP}/")[:MOST_NAME]
