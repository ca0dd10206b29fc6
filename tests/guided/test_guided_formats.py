"""Formats as automata: what they accept is right by their RFC and by the validators that people run."""

from __future__ import annotations

import calendar
import ipaddress
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from minillm_serve.guided.text import formats
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import class_ranges, intersect, is_empty, is_subset
from minillm_serve.guided.text.formats import FORMATS, format_dfa, format_max_length

VALID = {
    "date": ["2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01", "9999-12-31"],
    "time": ["00:00:00Z", "23:59:59.123456+14:00", "12:30:00-00:30", "12:00:00z"],
    "date-time": ["2024-02-29T12:00:00Z", "1963-06-19T08:30:06.283185-08:00", "1985-04-12t23:20:50.52z"],
    "duration": ["P4DT12H30M5S", "P1Y2M3D", "PT0S", "P2W", "P1M", "PT36H", "P0D", "P1YT1M"],
    "email": ["joe.bloggs@example.com", "te~st@example.com", "~@x", "a+b/c@mail.example.co.uk", "A" * 64 + "@b"],
    "idn-email": ["joe.bloggs@example.com", "실례@실례.테스트", "δοκιμή@παράδειγμα.gr"],
    "hostname": ["www.example.com", "localhost", "1host", "a-b.c-d", "a" * 63 + ".b"],
    "idn-hostname": ["www.example.com", "실례.테스트", "münchen.de", "пример.org"],
    "ipv4": ["192.168.0.1", "0.0.0.0", "255.255.255.255"],
    "ipv6": [
        "::",
        "::1",
        "12:34::fe",
        "1:2:3:4:5:6:7::",
        "::ffff:192.168.0.1",
        "2001:0DB8:85a3:0000:0000:8a2e:0370:7334",
    ],
    "uri": [
        "http://foo.bar/?baz=qux#quux",
        "https://user:pw@example.com:8080/a/b;c=1/?q=%20x/?#f/?",
        "urn:oasis:names:specification:docbook:dtd:xml:4.1.2",
        "mailto:John.Doe@example.com",
        "ldap://[2001:db8::7]/c=GB?objectClass?one",
        "file:///etc/passwd",
        "tel:+1-816-555-1212",
        "a:",
    ],
    "uri-reference": ["", "/abc", "abc", "#frag", "?q", "//host/x", "../a:b", "http://foo.bar"],
    "iri": ["http://ƒøø.ßår/?∂éœ=πîx#πîüx", "http://user@例.jp/道"],
    "iri-reference": ["/âππ", "âππ", "#ƒrägmênt", "http://ƒøø.ßår/"],
    "uri-template": [
        "http://example.com/dictionary/{term:1}/{term}",
        "http://x/{?q,lang*}",
        "plain",
        "{+path}/here",
        "",
    ],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2EB8AA08-AA98-11EA-B4AA-73B441D16380"],
    "json-pointer": ["", "/", "/foo//bar~0/baz~1/%a", "/0", "/~01"],
    "relative-json-pointer": ["0", "1/foo/bar", "2/0/baz/1/zip", "0#", "10"],
    "regex": ["([abc])+\\s+$", "^a*$", "a|b", "\\d{3}-\\d{2,}", "[^0-9]+?", "(?:ab(c(d)))"],
}
INVALID = {
    "date": [
        "2023-02-29",
        "1900-02-29",
        "2024-13-01",
        "2024-04-31",
        "2024-1-01",
        "0000-01-01",
        "20240101",
        "2024-01-01\n",
    ],
    "time": ["24:00:00Z", "12:60:00Z", "12:00:60Z", "12:00:00", "12:00Z", "12:00:00+24:00", "12:00:00.Z"],
    "date-time": ["2024-02-30T12:00:00Z", "2024-02-28 12:00:00Z", "2024-02-28T12:00:00", "2024-02-28T12:00Z"],
    "duration": ["P", "PT", "P1D1Y", "P1Y1D", "P2W1D", "P1.5D", "1D", "PT1H1S", "p1d"],
    "email": ["2962", ".a@b.c", "a.@b.c", "a..b@c.d", "a@", "@b", "a@-b", "a b@c", "A" * 65 + "@b"],
    "idn-email": ["2962", "a@", "실례"],
    "hostname": ["", "-a", "a-", "a..b", "a_b", "a.", "a" * 64, "ab--c", "é"],
    "idn-hostname": ["", "-a", "ab--c", "〮한국", "한\u302e국"],
    "ipv4": ["256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5", "1.2.3.4\n", "٣.2.3.4"],
    "ipv6": ["1:2:3:4:5:6:7:8:9", "::1::", "12345::", "1::2:3:4:5:6:7:8", "fe80::1%eth0", ":1", "1:2:3", "::1.2.3"],
    "uri": [
        "//foo.bar/",
        "/abc",
        "http:// x",
        "\\\\WINDOWS\\share",
        "http://a[b",
        "1a:b",
        ":x",
        "bar,\\#,",
        "a:%2g",
        "http://é.x",
    ],
    "uri-reference": ["\\\\WINDOWS\\share", "a b", "a^b", "1:2", "%zz"],
    "iri": ["/abc", "âππ", "http://a b"],
    "iri-reference": ["\\\\x", "#a\\b", " "],
    "uri-template": ["http://x/{term", "a}", "{}", "{!x}", "a b"],
    "uuid": [
        "2eb8aa08aa9811eab4aa73b441d16380",
        "2eb8aa08-aa98-11ea-b4aa-73b441d1638",
        "2eb8aa08-aa98-11ea-b4aa73b441d16380x",
    ],
    "json-pointer": ["foo", "/foo~", "/~2", "#/a"],
    "relative-json-pointer": ["", "01", "-1", "/a", "0##", "+1"],
    "regex": ["^(abc]", "a**", "(a", "[a", "\\", "a)", "*"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_what_its_rfc_says(name: str) -> None:
    accepted, rejected = format_dfa(name), format_dfa(name, side="reject")
    assert accepted is not None and rejected is not None
    assert is_empty(intersect(accepted, rejected))
    for text in VALID[name]:
        assert accepted.match(text) >= 0, text
    for text in INVALID[name]:
        assert accepted.match(text) < 0, text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("date", "date-time"),
        ("date-time", "time"),
        ("ipv4", "ipv6"),
        ("hostname", "ipv6"),
        ("hostname", "uri"),
        ("email", "hostname"),
        ("uuid", "date"),
        ("duration", "date"),
        ("uri", "ipv4"),
    ],
)
def test_formats_that_exclude_each_other_are_known_to(one: str, other: str) -> None:
    """What is surely the one is surely not the other, so that oneOf can tell them apart."""
    assert is_subset(format_dfa(one), format_dfa(other, side="reject"))
    assert is_subset(format_dfa(other), format_dfa(one, side="reject"))


def test_an_unknown_format_is_none() -> None:
    assert format_dfa("phone") is None and format_dfa("phone", side="reject") is None
    assert format_max_length("phone") is None and format_max_length("hostname") == 253


def test_every_day_of_every_kind_of_year() -> None:
    """All days from 00 to 32 of all months from 00 to 13, in leap years, others, centuries and the first years."""
    dates = format_dfa("date")
    for year in (1, 4, 10, 96, 100, 400, 1896, 1900, 1904, 2000, 2023, 2024, 2100, 2396, 2400, 8000, 9999):
        for month in range(14):
            days = calendar.monthrange(year, month)[1] if 1 <= month <= 12 else 0
            for day in range(33):
                assert (dates.match(f"{year:04}-{month:02}-{day:02}") >= 0) == (1 <= day <= days)
    leap = [year for year in range(10_000) if dates.match(f"{year:04}-02-29") >= 0]
    assert leap == [year for year in range(1, 10_000) if calendar.isleap(year)]


def _walk(dfa: CharDfa, dice: random.Random, wanted: int) -> str | None:
    """A text that the automaton accepts, of ``wanted`` characters or a little more; None if it got lost."""
    ranges = class_ranges(dfa)
    state, text = 0, ""
    while dfa.tags[state] < 0 or len(text) < wanted:
        ways = [number for number, target in enumerate(dfa.rows[state]) if target >= 0]
        if not ways or len(text) > 120:
            return text if dfa.tags[state] >= 0 else None
        number = dice.choice(ways)
        first, last = dice.choice(ranges[number])
        text += chr(dice.choice((first, last, dice.randint(first, last))))
        state = dfa.rows[state][number]
    return text


def _texts(name: str, count: int, side: str = "accept") -> Iterator[str]:
    dice = random.Random(f"{name} {side}")
    dfa = format_dfa(name, side=side)
    high = format_max_length(name) or 10**6
    for _ in range(count):
        text = _walk(dfa, dice, dice.randrange(1, 40))
        if text is not None and len(text) <= high:
            yield text


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_accepted_is_valid_and_what_is_rejected_is_not(name: str) -> None:
    """The judge is jsonschema, with as many of its optional packages as are installed."""
    judge = pytest.importorskip("jsonschema").Draft202012Validator.FORMAT_CHECKER
    if name not in judge.checkers:
        pytest.skip(f"jsonschema cannot check {name} without another package")
    accepted = list(_texts(name, 250))
    assert len(accepted) >= 50
    for text in accepted:
        assert judge.conforms(text, name), text
    for text in _texts(name, 100, side="reject"):
        assert not judge.conforms(text, name), text


def test_every_shape_of_ipv6_address_agrees_with_the_standard_library() -> None:
    dfa = format_dfa("ipv6")
    for before in range(10):
        for behind in range(10):
            for tail in ("", "1.2.3.4"):
                text = ":".join(["ab"] * before) + "::" + ":".join([*["1"] * behind, *[tail] * bool(tail)])
                assert (dfa.match(text) >= 0) == _is_ipv6(text), text
        groups = ":".join(["0"] * before)
        for text in (groups, f"{groups}:1.2.3.4", f"{groups}:", f":{groups}"):
            assert (dfa.match(text) >= 0) == _is_ipv6(text), text


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def test_a_regex_that_is_generated_compiles() -> None:
    for text in _texts("regex", 400):
        re.compile(text)


def test_a_stored_automaton_is_the_one_that_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    format_dfa.cache_clear()
    built = format_dfa("ipv6")
    (file,) = tmp_path.rglob("*ipv6*")
    format_dfa.cache_clear()
    monkeypatch.setattr(formats, "compile_pattern", None)  # so this one can only come from the file
    read = format_dfa("ipv6")
    monkeypatch.undo()
    assert all(getattr(read, part) == getattr(built, part) for part in formats.PARTS)

    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    format_dfa.cache_clear()
    assert format_dfa("ipv6").rows == built.rows
    format_dfa.cache_clear()
