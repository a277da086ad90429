"""One measured figure, and how far it is from what it should be."""

from typing import NamedTuple


class Target(NamedTuple):
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def at_least(bound: float) -> Target:
    return Target("≥", bound)


def at_most(bound: float) -> Target:
    return Target("≤", bound)


class Figure(NamedTuple):
    name: str
    value: float
    target: Target
    note: str = ""  # what was measured, in its own units

    def ok(self) -> bool:
        most = self.target.sign == "≤"
        return self.value <= self.target.bound if most else self.value >= self.target.bound

    def line(self) -> str:
        return f"{self.name}\t{self.value:.3g}\t{self.target}\t{'ok' if self.ok() else 'short'}"
