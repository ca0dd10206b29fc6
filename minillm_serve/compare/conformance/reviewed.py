"""The reviewed list: differences that are meant, each with its reason (``differences.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.comparing import Difference
from minillm_serve.config import ConfigError

LIST = Path(__file__).parent / "differences.toml"
VERDICTS = ("safer", "clearer", "more", "unsupported", "neutral")


@dataclass(frozen=True)
class Rule:
    """Globs of case names and of paths in the answer, the kinds of difference meant, and why they are.

    verdict: ours is safer, clearer, or does more; unsupported: theirs does more; neutral: neither is better.
    """

    cases: tuple[str, ...]
    paths: tuple[str, ...]
    reason: str
    verdict: str
    kinds: tuple[str, ...] = ()

    def covers(self, case: Case, difference: Difference) -> bool:
        """Whether this difference is meant by this rule."""
        return (
            _any(case.name, self.cases)
            and _any(difference.path, self.paths)
            and (not self.kinds or difference.kind in self.kinds)
        )


def _any(text: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)


def load_rules(path: Path = LIST) -> list[Rule]:
    """Raises ConfigError on a rule without a reason or with an unknown field."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("difference", [])
    return [_rule(number, entry) for number, entry in enumerate(entries, 1)]


def _rule(number: int, entry: dict) -> Rule:
    try:
        rule = Rule(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
    except TypeError as error:
        raise ConfigError(f"rule {number} of the reviewed list: {error}") from error
    if not rule.reason.strip() or rule.verdict not in VERDICTS or not rule.cases or not rule.paths:
        raise ConfigError(f"rule {number} of the reviewed list needs cases, paths, a reason and a known verdict")
    return rule


def unexplained(
    case: Case, differences: Sequence[Difference], rules: Sequence[Rule], used: set[int]
) -> list[Difference]:
    """Those that no rule covers; the places of the rules that cover one are added to ``used``."""
    left = []
    for difference in differences:
        covering = [place for place, rule in enumerate(rules) if rule.covers(case, difference)]
        used.update(covering)
        if not covering:
            left.append(difference)
    return left
