"""Sends cases to a server and keeps what it says."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.config import ConfigError

TIMEOUT_S = 180.0
AT_ONCE = 8


def ask(url: str, case: Case) -> Answer:
    """The whole answer to one request. Raises :class:`ConfigError` where there is none."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
    body, headers = case.payload()
    try:
        connection.request(case.method, case.path, body, headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{url} gave no answer to the case {case.name}: {error!r}") from error
    finally:
        connection.close()
    media_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
    return Answer(response.status, media_type, response.getheader("x-request-id"), text)


def ask_all(url: str, cases: Sequence[Case], say: Callable[[str], None]) -> dict[str, Answer]:
    """Answers by case name; chains in their order, eight chains at once, then the cases that must be alone."""

    def answer(chain: list[Case]) -> list[tuple[str, Answer]]:
        return [(case.name, ask(url, case)) for case in chain]

    found: dict[str, Answer] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, answers in enumerate(pool.map(answer, chains(case for case in cases if not case.alone)), 1):
            found.update(answers)
            if number % 100 == 0:
                say(f"{len(found)} of {len(cases)} answered")
    return found | {case.name: ask(url, case) for case in cases if case.alone}


def chains(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases grouped so that each comes after the one it names. Raises ConfigError when that one is not there."""
    made: list[list[Case]] = []
    chain_of: dict[str, list[Case]] = {}
    for case in cases:
        if case.after is None:
            chain: list[Case] = []
            made.append(chain)
        elif case.after in chain_of:
            chain = chain_of[case.after]
        else:
            raise ConfigError(f"the case {case.name} comes after {case.after!r}, which is not asked before it")
        chain.append(case)
        chain_of[case.name] = chain
    return made
