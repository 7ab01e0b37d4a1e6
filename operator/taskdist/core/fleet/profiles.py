"""The profile of each shape (what serves it) and its demand (what could serve it).

Profiles and demands come with the first shape that needs them and go with the last. A class of agents has a roster for
each set of resources that a profile asks for. Which agents serve which shapes is the catalogue's to know.
"""

from collections.abc import Callable

from taskdist.core.agents.roster import AgentClass, Resources, Roster
from taskdist.core.fleet.equivalence import Candidates, Census, Demand, Profile, ProfileKey, Shape
from taskdist.core.primitives.bitsets import has


class Profiles:
    """All profiles and demands, each made for the first shape that needs it."""

    def __init__(
        self,
        rehome: Callable[[Shape, Profile | None], None],
        redirect: Callable[[Shape, Demand | None, Demand | None], None],
        resized: Callable[[Roster], None],
    ) -> None:
        self.profiles: dict[ProfileKey, Profile] = {}
        self.demands: dict[Candidates, Demand] = {}
        # Grows whenever a pool or the set of demands changes.
        self.version = 0
        self.by_number: dict[int, AgentClass] = {}
        self.census = Census()
        self._rehome = rehome
        self._redirect = redirect
        self._resized = resized
        self._free_profiles: list[int] = []
        self._free_leaves: list[int] = []
        self._leaves = 0

    def want(self, shape: Shape, candidates: Candidates) -> None:
        if candidates == shape.candidates:
            return
        former, demand = shape.demand, None
        if candidates:
            demand = self.demands.get(candidates)
            if demand is None:
                demand = self.demands[candidates] = Demand(candidates)
                self.version += 1
            demand.shapes += 1
        self._redirect(shape, former, demand)
        shape.candidates, shape.demand = candidates, demand
        if former is not None:
            former.shapes -= 1
            if not former.shapes:
                del self.demands[former.candidates]
                self.version += 1

    def place(self, shape: Shape, profile: Profile | None) -> None:
        former = shape.profile
        if profile is former:
            return
        if profile is not None:
            profile.shapes += 1
        self._rehome(shape, profile)
        shape.profile = profile
        if former is not None:
            former.shapes -= 1
            if not former.shapes:
                self._retire(former)

    def of(self, shape: Shape) -> Profile:
        key = ProfileKey(shape.serving, shape.need.slots, shape.need.resources, shape.tiers, shape.taking)
        profile = self.profiles.get(key)
        if profile is None:
            number = self._free_profiles.pop() if self._free_profiles else len(self.profiles)
            kinds = [kind for kind in self.by_number.values() if has(shape.serving, kind.number)]
            rosters = [self._roster(kind, shape.need.resources) for kind in kinds]
            profile = self.profiles[key] = Profile(number, key, rosters, self.census)
            for roster in rosters:
                roster.attach(number, profile.slots)
                self._resized(roster)
        return profile

    def _retire(self, profile: Profile) -> None:
        del self.profiles[profile.key]
        self._free_profiles.append(profile.number)
        for roster in profile.rosters:
            roster.detach(profile.number)
            self._resized(roster)
            if not roster.masks[-1]:
                self._disband(roster)

    def _roster(self, kind: AgentClass, resources: Resources) -> Roster:
        roster = kind.rosters.get(resources)
        if roster is None:
            if self._free_leaves:
                leaf = self._free_leaves.pop()
            else:
                leaf = self._leaves
                self._leaves += 1
            roster = kind.rosters[resources] = Roster(kind, resources, leaf)
            for agent in kind.members.values():
                if agent.open:
                    roster.join(agent)
        return roster

    def _disband(self, roster: Roster) -> None:
        for agent in roster.agents():
            agent.rosters.remove(roster)
        del roster.kind.rosters[roster.resources]
        self._free_leaves.append(roster.leaf)
