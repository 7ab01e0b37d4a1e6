"""Distributions of service times, slacks and gaps, each as the function that turns a uniform number into a value.

One uniform per value (inverse transform): a Task keeps its value whatever else is drawn, and a change of scale moves
all values the same way. Refuses to draw: the uniforms are the caller's.
"""

from collections.abc import Callable
from math import exp, gamma, inf, log, log1p
from statistics import NormalDist
from typing import Annotated, Any, Protocol

from pydantic import Field, model_validator

from taskdist.simulation.base import NotNegative, Part, Positive

_NORMAL = NormalDist()


class Distribution(Protocol):
    """Values in seconds unless a field says otherwise."""

    @property
    def mean(self) -> float:
        """The expected value; infinite where it does not exist."""
        ...

    def quantile(self, uniform: float) -> float:
        """Return the value below which this part of all values lies; `uniform` is above 0 and below 1."""
        ...


class Constant(Part):
    """Always the same value."""

    value: NotNegative

    @property
    def mean(self) -> float:
        return self.value

    def quantile(self, _uniform: float) -> float:
        return self.value


class Exponential(Part):
    """Memoryless."""

    mean: Positive

    def quantile(self, uniform: float) -> float:
        return -self.mean * log1p(-uniform)


class Uniform(Part):
    """Evenly between two values."""

    low: NotNegative = 0.0
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        if self.low > self.high:
            raise ValueError("low is above high: exchange them")
        return self

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def quantile(self, uniform: float) -> float:
        return self.low + (self.high - self.low) * uniform


class Lognormal(Part):
    """The logarithm is normal with standard deviation `sigma`. Give its `median` or its `mean`."""

    median: Positive | None = None
    mean_: Positive | None = Field(default=None, alias="mean")
    sigma: NotNegative

    @model_validator(mode="after")
    def _one_scale(self) -> "Lognormal":
        if (self.median is None) == (self.mean_ is None):
            raise ValueError("give either median or mean, not both and not none")
        return self

    @property
    def _scale(self) -> float:
        if self.median is not None:
            return self.median
        assert self.mean_ is not None
        return self.mean_ * exp(-self.sigma * self.sigma / 2)

    @property
    def mean(self) -> float:
        return self._scale * exp(self.sigma * self.sigma / 2)

    def quantile(self, uniform: float) -> float:
        return self._scale * exp(self.sigma * _NORMAL.inv_cdf(uniform))


class Pareto(Part):
    """Heavy tail: P(X > x) = (minimum ÷ x)^shape. The mean is infinite for shapes up to 1, the variance up to 2."""

    shape: Positive
    minimum: Positive
    maximum: Positive | None = Field(default=None, description="Values above are cut to this one.")

    @property
    def mean(self) -> float:
        if self.maximum is not None:
            ratio = self.minimum / self.maximum
            if self.shape == 1:
                return self.minimum * (1 - log(ratio))
            # ∫ x f dx up to the cut, and the mass beyond it at the cut.
            body = self.shape * self.minimum * (1 - ratio ** (self.shape - 1)) / (self.shape - 1)
            return float(body + self.maximum * ratio**self.shape)
        return self.shape * self.minimum / (self.shape - 1) if self.shape > 1 else inf

    def quantile(self, uniform: float) -> float:
        value: float = self.minimum * (1 - uniform) ** (-1 / self.shape)
        return value if self.maximum is None else min(value, self.maximum)


class Weibull(Part):
    """P(X > x) = exp(−(x ÷ scale)^shape): shape below 1 has a heavy tail, 1 is exponential."""

    shape: Positive
    scale: Positive

    @property
    def mean(self) -> float:
        return self.scale * gamma(1 + 1 / self.shape)

    def quantile(self, uniform: float) -> float:
        return float(self.scale * (-log1p(-uniform)) ** (1 / self.shape))


class Branch(Part):
    """One of several means."""

    weight: Positive
    mean: Positive


class Hyperexponential(Part):
    """Exponential with one of several means: more variable than exponential."""

    branches: Annotated[list[Branch], Field(min_length=1)]

    @property
    def mean(self) -> float:
        return sum(each.weight * each.mean for each in self.branches) / sum(each.weight for each in self.branches)

    def quantile(self, uniform: float) -> float:
        # Composition, not the inverse of the mixture: the part of the uniform that chose the branch is spent, the
        # rest is uniform again.
        left = uniform * sum(each.weight for each in self.branches)
        for each in self.branches[:-1]:
            if left < each.weight:
                return -each.mean * log1p(-_inside(left / each.weight))
            left -= each.weight
        last = self.branches[-1]
        return -last.mean * log1p(-_inside(left / last.weight))


class Empirical(Part):
    """One of the given values, each as likely."""

    values: Annotated[list[NotNegative], Field(min_length=1)]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    def quantile(self, uniform: float) -> float:
        return self.values[int(uniform * len(self.values))]


def _inside(uniform: float) -> float:
    # Rounding may reach 1, whose quantile is infinite.
    return min(max(uniform, 2.0**-60), 1 - 2.0**-53)


class OneOf(Part):
    """A choice of one distribution by its name: `exponential: {mean: 1}`. A number alone is a constant."""

    constant: Constant | None = None
    exponential: Exponential | None = None
    uniform: Uniform | None = None
    lognormal: Lognormal | None = None
    pareto: Pareto | None = None
    weibull: Weibull | None = None
    hyperexponential: Hyperexponential | None = None
    empirical: Empirical | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"constant": {"value": given}}
        if isinstance(given, dict) and isinstance(given.get("constant"), int | float):
            return given | {"constant": {"value": given["constant"]}}
        if isinstance(given, dict) and isinstance(given.get("empirical"), list):
            return given | {"empirical": {"values": given["empirical"]}}
        return given

    @model_validator(mode="after")
    def _exactly_one(self) -> "OneOf":
        if len(self.model_fields_set) != 1 or self.chosen is None:
            raise ValueError(f"give exactly one distribution of: {', '.join(type(self).model_fields)}")
        return self

    @property
    def chosen(self) -> Distribution:
        name = next(iter(self.model_fields_set))
        found: Distribution = getattr(self, name)
        return found

    @property
    def mean(self) -> float:
        return self.chosen.mean

    def sampler(self) -> Callable[[float], float]:
        """Return the quantile function of the chosen distribution."""
        return self.chosen.quantile
