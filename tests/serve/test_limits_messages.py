"""Errors say what was wrong, and nothing of where the server lives; settings that cannot work are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm_serve.config import ConfigError
from minillm_serve.serve.http.errors import error_body, error_response
from minillm_serve.serve.http.hygiene import clean
from minillm_serve.serve.settings import ServerSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<object at 0x7f3a2b1c9d80>", "<object at 0x…>"),
        ("no file /home/ana/models/x.bin here", "no file … here"),
        ("'/usr/lib/python3/x.py' and (/etc/passwd)", "'…' and (…)"),
        ('File "/srv/app/x.py", line 12, in load failed', "… failed"),
        ("it broke: Traceback (most recent call last):\n  File ...", "it broke: …"),
        (r"C:\Users\ana\model.gguf is missing", "… is missing"),
        ("there is nothing at /v1/nothing; see /openapi.json", "there is nothing at /v1/nothing; see /openapi.json"),
        ("see https://example.com/home/page", "see https://example.com/home/page"),
        ("7/8 of the tokens, a/b", "7/8 of the tokens, a/b"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
    ],
)
def test_addresses_paths_and_tracebacks_are_hidden(text: str, expected: str):
    assert clean(text, 1000) == expected


def test_the_processs_own_folders_are_hidden():
    for folder in (os.getcwd(), sys.prefix, str(Path.home()), str(Path(clean.__code__.co_filename).parent)):
        assert folder not in clean(f"cannot read {folder}/secret/file.txt", 1000)


@given(st.text(max_size=4000), st.text(max_size=4000))
def test_no_error_is_large(message: str, param: str):
    response = error_response(400, message, param)
    assert len(response.body) < 8000
    assert set(error_body(400, message, param)["error"]) == {"message", "type", "param", "code"}


def test_every_503_says_when_to_come_again():
    assert error_response(503, "busy").headers["retry-after"] == "1"
    assert error_response(503, "busy", headers={"Retry-After": "7"}).headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": -1},
        {"max_num_queued_reqs": -5},
        {"queue_timeout": -0.1},
        {"request_timeout": float("nan")},
        {"header_timeout": 0},
        {"write_timeout": float("inf")},
        {"h11_max_header_count": 0},
        {"h11_max_incomplete_event_size": 10},
        {"isolate_cache": "user"},
        {"allowed_origins": "https://example.com"},
        {"allowed_origins": "[1]"},
    ],
    ids=str,
)
def test_a_limit_that_cannot_work_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        ServerSettings(**wrong)
