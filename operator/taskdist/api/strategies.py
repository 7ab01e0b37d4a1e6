"""The strategies: how one agent is picked, by the word of a queue or of a step of a route."""

from enum import StrEnum


class Strategy(StrEnum):
    """How one agent is picked among those that may run a Task and have room."""

    ADAPTIVE = "Adaptive"
    ROUND_ROBIN = "RoundRobin"
    SMOOTH_WEIGHTED = "SmoothWeighted"
    LEAST_LOADED = "LeastLoaded"
    RANDOM = "Random"
    POWER_OF_TWO = "PowerOfTwo"
    CONSISTENT_HASH = "ConsistentHash"
    SPREAD = "Spread"
    PACK = "Pack"
    PERFORMANCE = "Performance"
    AFFINITY = "Affinity"
    ZONE_AWARE = "ZoneAware"
    COST = "Cost"
    ENERGY = "Energy"
