"""One regular expression for each format, put together from the rules of its RFC under the names that they have there.

They are written so that all dialects read them alike: explicit classes, no shorthands.
"""

from __future__ import annotations

from collections.abc import Callable

ANY = r"[\u{0}-\u{10FFFF}]"

# -- RFC 3339: dates and times ---------------------------------------------------------------------------------------

_DIGIT = "[0-9]"
# Year 0000 is left out: many calendars, and Python's, begin with 0001.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
# 4 divides it, and 400 does if 100 does.
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_MONTH_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# Leap seconds (:60) are left out: they exist on few days, and most validators know none.
_TIME = f"{_HOUR_MINUTE}:[0-5][0-9](?:\\.[0-9]+)?(?:[Zz]|[+-]{_HOUR_MINUTE})"
_DURATION_TIME = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DURATION_DATE = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_DURATION = f"P(?:{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME}|[0-9]+W)"

# -- RFC 1123, 5321, 5891: hosts and mailboxes -----------------------------------------------------------------------

# A label has at most 63 characters; "--" in its third and fourth place is kept for encoded names (RFC 5890).
_LABEL = "(?![A-Za-z0-9-]{2}--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = f"(?:{_LABEL}\\.)*{_LABEL}"
_ATEXT = "A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-"
_EMAIL = f"(?=[^@]{{1,64}}@)[{_ATEXT}]+(?:\\.[{_ATEXT}]+)*@{_HOSTNAME}"
# Small letters that every version of IDNA 2008 takes as they are, of scripts written from left to right. A label of
# ten of them is never longer than 63 characters when encoded.
_ULETTER = (
    "\\u00DF-\\u00F6\\u00F8-\\u00FF\\u0430-\\u045F\\u03AC-\\u03CE\\u3041-\\u3096\\u30A1-\\u30FA\\u4E00-\\u9FCC\\uAC00-\\uD7A3"
    "\u0101\u0103\u0105\u0107\u0109\u010b\u010d\u010f\u0111\u0113\u0115\u0117\u0119\u011b\u011d\u011f\u0121\u0123"
    "\u0125\u0127\u0129\u012b\u012d\u012f\u0131\u0135\u0137\u013a\u013c\u013e\u0142\u0144\u0146\u0148\u014b\u014d"
    "\u014f\u0151\u0153\u0155\u0157\u0159\u015b\u015d\u015f\u0161\u0163\u0165\u0167\u0169\u016b\u016d\u016f\u0171"
    "\u0173\u0175\u0177\u017a\u017c\u017e"
)
_ULABEL = f"(?=[^.]{{1,10}}(?:\\.|$))[a-z0-9{_ULETTER}]+(?:-[a-z0-9{_ULETTER}]+)*"
_IDN_LABEL = f"(?:{_LABEL}|{_ULABEL})"
_IDN_HOSTNAME = f"(?:{_IDN_LABEL}\\.)*{_IDN_LABEL}"
_UCSCHAR = "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF"
_IDN_EMAIL = f"(?=[^@]{{1,20}}@)[{_ATEXT}{_UCSCHAR}]+(?:\\.[{_ATEXT}{_UCSCHAR}]+)*@{_IDN_HOSTNAME}"

# -- RFC 2673, 4291: addresses ---------------------------------------------------------------------------------------

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = f"(?:{_OCTET}\\.){{3}}{_OCTET}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"


def _ipv6() -> str:
    """IPv6address of RFC 3986: eight groups, or fewer with one ``::`` somewhere, the last two perhaps as IPv4."""
    forms = [f"(?:{_H16}:){{6}}{_LS32}"]
    for before in range(8):  # groups that may stand before "::"; so many are left to stand behind it
        head = f"(?:(?:{_H16}:){{0,{before - 1}}}{_H16})?" if before else ""
        behind = 7 - before
        tail = f"(?:{_H16}:){{{behind - 2}}}{_LS32}" if behind >= 2 else _H16 if behind else ""
        forms.append(f"{head}::{tail}")
    return f"(?:{'|'.join(forms)})"


# -- RFC 3986, 3987: URIs and IRIs -----------------------------------------------------------------------------------

_PERCENT = "%[0-9A-Fa-f]{2}"
_UNRESERVED = "A-Za-z0-9\\-._~"
_SUB_DELIMS = "!$&'()*+,;="


def _uri(more: str, ip_literal: str, reference: bool) -> str:
    """URI, or URI-reference. more: characters that count as unreserved beside those of RFC 3986."""
    plain = f"{_UNRESERVED}{more}{_SUB_DELIMS}"
    pchar = f"(?:[{plain}:@]|{_PERCENT})"
    path_abempty = f"(?:/{pchar}*)*"
    path_absolute = f"/(?:{pchar}+{path_abempty})?"
    authority = f"(?:(?:[{plain}:]|{_PERCENT})*@)?(?:\\[{ip_literal}\\]|(?:[{plain}]|{_PERCENT})*)(?::[0-9]*)?"
    hierarchy = f"//{authority}{path_abempty}|{path_absolute}"
    rest = f"(?:\\?(?:[{plain}:@/?]|{_PERCENT})*)?(?:#(?:[{plain}:@/?]|{_PERCENT})*)?"
    uri = f"[A-Za-z][A-Za-z0-9+\\-.]*:(?:{hierarchy}|{pchar}+{path_abempty}|){rest}"
    if not reference:
        return uri
    path_noscheme = f"(?:[{plain}@]|{_PERCENT})+{path_abempty}"
    return f"(?:{uri}|(?:{hierarchy}|{path_noscheme}|){rest})"


def _ip_literal() -> str:
    return f"(?:{_ipv6()}|v[0-9A-Fa-f]+\\.[{_UNRESERVED}{_SUB_DELIMS}:]+)"


_FULL_IPV6 = f"(?:{_H16}:){{7}}{_H16}"  # in an IRI, only the form without "::" and IPv4

# -- RFC 6570, 6901, ECMA 262 ----------------------------------------------------------------------------------------

_VARSPEC = "[A-Za-z0-9_]+(?:\\.[A-Za-z0-9_]+)*(?::[1-9][0-9]{0,2}|\\*)?"
_URI_TEMPLATE = f"(?:[!#$&(-;=?-\\[\\]_a-z~{_UCSCHAR}]|{_PERCENT}|\\{{[+#./;?&]?{_VARSPEC}(?:,{_VARSPEC})*\\}})*"
_POINTER = "(?:/(?:[^~/]|~[01])*)*"
# Numbers in which a digit follows a 0 (100, say) are left out: a widespread validator refuses them.
_RELATIVE_POINTER = f"(?:0|[1-9]+0?)(?:#|{_POINTER})"


def _regex() -> str:
    """Regular expressions that every dialect reads: literals, plain classes, groups three deep, one quantifier each."""
    literal = "[A-Za-z0-9_ !\"#%&',/:;<=>@`~\\-]"
    escape = "\\\\[dDwWsSnrt^$.*+?()\\[\\]{}|\\\\/]"
    member = "(?:[A-Za-z0-9_ .,:;@/+*]|a-z|A-Z|0-9|\\\\[dwsnrt.\\]\\[\\\\^/\\-])"
    one = f"{literal}|{escape}|\\.|\\[\\^?{member}+\\]"
    quantifier = "(?:[*+?]\\??|\\{[0-9]{1,3},?\\}\\??)?"
    body = f"(?:\\^|\\$|(?:{one}){quantifier})*"
    for _ in range(3):
        body = f"(?:\\^|\\$|\\||(?:{one}|\\((?:\\?:)?{body}\\)){quantifier})*"
    return body


ACCEPTED: dict[str, Callable[[], str]] = {
    "date": lambda: _DATE,
    "time": lambda: _TIME,
    "date-time": lambda: f"{_DATE}[Tt]{_TIME}",
    "duration": lambda: _DURATION,
    "email": lambda: _EMAIL,
    "idn-email": lambda: _IDN_EMAIL,
    "hostname": lambda: _HOSTNAME,
    "idn-hostname": lambda: _IDN_HOSTNAME,
    "ipv4": lambda: _IPV4,
    "ipv6": _ipv6,
    "uri": lambda: _uri("", _ip_literal(), False),
    "uri-reference": lambda: _uri("", _ip_literal(), True),
    "iri": lambda: _uri(_UCSCHAR, _FULL_IPV6, False),
    "iri-reference": lambda: _uri(_UCSCHAR, _FULL_IPV6, True),
    "uri-template": lambda: _URI_TEMPLATE,
    "uuid": lambda: "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "json-pointer": lambda: _POINTER,
    "relative-json-pointer": lambda: _RELATIVE_POINTER,
    "regex": _regex,
}

# What some validator might take for the format: older and laxer readings, year 0000, leap seconds, a last line end.
# Of uri-template that is nearly everything, so nothing is surely none.
_LAX_DATE = f"(?:{_DATE}|0000-(?:{_MONTH_DAY}|02-29))"
_LAX_OFFSET = "(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)"
_NOT_IN_A_URI = '\\u{0}-\\u{20}<>"{}|\\\\^`'
_LAX_LABEL = "[A-Za-z0-9_\\-\\u{80}-\\u{10FFFF}]+"
_LAX_HOSTNAME = f"{_LAX_LABEL}(?:\\.{_LAX_LABEL})*\\.?\\n?"
_LAX_URI = f"[A-Za-z][A-Za-z0-9+\\-.]*:[^{_NOT_IN_A_URI}]*\\n?"
_LAX_REFERENCE = f"[^{_NOT_IN_A_URI}]*\\n?"
POSSIBLE: dict[str, str] = {
    "date": f"{_LAX_DATE}\\n?",
    "time": f"[0-9]{{1,2}}:[0-9]{{1,2}}:[0-9]{{1,2}}(?:\\.[0-9]+)?{_LAX_OFFSET}?\\n?",
    "date-time": f"{_LAX_DATE}{ANY}[0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]+)?)?{_LAX_OFFSET}\\n?",
    "duration": "[+\\-]?P[0-9.,:eEYMWDTHS+\\-]*\\n?",
    "email": f"{ANY}*@{ANY}*",
    "idn-email": f"{ANY}*@{ANY}*",
    "hostname": _LAX_HOSTNAME,
    "idn-hostname": _LAX_HOSTNAME,
    "ipv4": f"(?:0*{_OCTET}\\.){{3}}0*{_OCTET}\\n?",
    "ipv6": f"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:[%/]{ANY}*)?\\n?",
    "uri": _LAX_URI,
    "uri-reference": _LAX_REFERENCE,
    "iri": _LAX_URI,
    "iri-reference": _LAX_REFERENCE,
    "uuid": f"{ANY}{{8}}-{ANY}{{4}}-{ANY}{{4}}-{ANY}{{4}}-{ANY}*",
    "json-pointer": f"(?:/{ANY}*)?",
    "relative-json-pointer": f"[^/]{ANY}*",
    "regex": f"(?:[^*+?)]{ANY}*)?",
}

MAX_LENGTHS = {"hostname": 253, "idn-hostname": 100, "email": 254, "idn-email": 100}
