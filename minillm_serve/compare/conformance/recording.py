"""Answers of vLLM kept in a file, so that ours can be compared with them in seconds and without vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.config import ConfigError

FORMAT = 1
COMMITTED = Path(__file__).parent / "recorded" / "vllm.json"


@dataclass
class Recording:
    """vLLM's answers by case name, each with the digest of the request it answers. about: version and flags."""

    about: dict[str, Any]
    answers: dict[str, tuple[str, Answer]] = field(default_factory=dict)

    def add(self, cases: Iterable[Case], answers: Mapping[str, Answer]) -> None:
        """Keep new answers, in place of older ones."""
        self.answers |= {case.name: (case.digest, answers[case.name]) for case in cases if case.name in answers}

    def split(self, cases: Iterable[Case]) -> tuple[dict[str, Answer], list[str]]:
        """The answers to these very requests, and the names of the cases that have none."""
        found, missing = {}, []
        for case in cases:
            digest, answer = self.answers.get(case.name, ("", None))
            if answer is None or digest != case.digest:
                missing.append(case.name)
            else:
                found[case.name] = answer
        return found, missing

    def save(self, path: Path) -> None:
        """One line for each case, so that a change of one is a change of one line."""
        lines = [
            f"{json.dumps(name)}: {json.dumps({'digest': digest, **asdict(answer)}, ensure_ascii=False)}"
            for name, (digest, answer) in sorted(self.answers.items())
        ]
        head = json.dumps({"format": FORMAT, **self.about}, ensure_ascii=False)[1:-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        body = ",\n".join(lines)
        path.write_text(f'{{{head}, "answers": {{\n{body}\n}}}}\n', encoding="utf-8")


def load(path: Path) -> Recording:
    """Raises ConfigError where the file is not a recording."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ConfigError(f"{path} is a recording of another format; record it again")
        answers = {
            name: (entry["digest"], Answer(**{key: entry[key] for key in entry if key != "digest"}))
            for name, entry in data.pop("answers").items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a recording that can be read: {error!r}") from error
    return Recording(data, answers)
