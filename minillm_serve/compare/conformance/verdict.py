"""What a run found: each case agreed, listed or unexplained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.compare.conformance.comparing import Difference, compare
from minillm_serve.compare.conformance.reviewed import Rule, unexplained


@dataclass
class Verdict:
    """agreed, listed: case names. unexplained: differences nobody has reviewed, by case. stale: reasons of rules that
    no case needed (only of a whole run)."""

    agreed: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    unexplained: dict[str, list[Difference]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)

    @property
    def compared(self) -> int:
        return len(self.agreed) + len(self.listed) + len(self.unexplained)

    @property
    def sound(self) -> bool:
        return not self.unexplained and not self.stale

    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.agreed)} agreed, {len(self.listed)} differ as listed, {len(self.unexplained)} unexplained, "
            f"{self.compared} compared"
        )

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        counts = {"compared": self.compared, "agreed": len(self.agreed), "listed": len(self.listed)}
        found = {name: [vars(difference) for difference in some] for name, some in self.unexplained.items()}
        return counts | {"listed_cases": self.listed, "unexplained": found, "stale_rules": self.stale}


def judge(
    cases: Sequence[Case], theirs: Mapping[str, Answer], ours: Mapping[str, Answer], rules: Sequence[Rule], whole: bool
) -> Verdict:
    """Compare the answers to ``cases``. whole: they are all the cases there are, so every rule must be needed."""
    verdict = Verdict()
    used: set[int] = set()
    for case in cases:
        differences = compare(case, theirs[case.name], ours[case.name])
        left = unexplained(case, differences, rules, used)
        if left:
            verdict.unexplained[case.name] = left
        else:
            (verdict.listed if differences else verdict.agreed).append(case.name)
    if whole:
        verdict.stale = [rule.reason for place, rule in enumerate(rules) if place not in used]
    return verdict
