"""What an answer means: exit code, what it says of the sync, what to do, what to keep.

judge() is a pure function; that runs end accordingly is shown in test_truth.py.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from conftest import API_KEY, API_SECRET, INPUTS
from faults import HTML, REFUSAL, SUCCESS

import fivetran_execute_sync as script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fivetran_execute_sync import Outcome


@pytest.fixture(autouse=True)
def known_secrets() -> Iterator[None]:
    script.read_inputs([], INPUTS)
    yield
    script.SECRETS.clear()


def judge(status: int, body: str | bytes, **headers: str) -> Outcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    return script.judge(status, named, content)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_2xx_with_success_is_the_only_answer_that_starts_a_sync(status: int) -> None:
    outcome = judge(status, SUCCESS, X_Request_Id="r-1")
    assert outcome.exit_code == 0
    assert outcome.reason == f"HTTP {status}, Success: on its way (request ID r-1)"
    assert not outcome.refused
    assert not outcome.retry


# Status, exit code, whether another try may help, what the advice names.
REFUSALS = [
    (400, 201, False, "a newer version"),
    (401, 200, False, "the API key and secret"),
    (403, 200, False, "a role that may sync"),
    (404, 204, False, "Setup tab"),
    (408, 201, False, "a newer version"),
    (409, 203, False, "Wait until the current sync has ended"),
    (429, 249, True, "the account has used up its requests for this hour"),
    (499, 201, False, "a newer version"),
]


@pytest.mark.parametrize(("status", "exit_code", "retry", "advice"), REFUSALS)
def test_4xx_of_fivetran_is_a_refusal(
    status: int, exit_code: int, retry: bool, advice: str
) -> None:
    for body in (REFUSAL, SUCCESS):
        outcome = judge(status, body)
        assert outcome.refused
        assert (outcome.exit_code, outcome.retry) == (exit_code, retry)
        assert advice in outcome.advice
        assert outcome.response == body
    assert (
        judge(status, REFUSAL).reason == f"HTTP {status}, Refusal: What Fivetran says."
    )


@pytest.mark.parametrize(
    ("status", "retry"),
    [(500, True), (599, True), (199, False), (200, False), (299, False), (600, False)],
)
def test_whatever_else_fivetran_says_leaves_it_open(status: int, retry: bool) -> None:
    outcome = judge(status, REFUSAL)
    assert (outcome.exit_code, outcome.refused, outcome.retry) == (249, False, retry)
    assert "status.fivetran.com" in outcome.advice
    assert outcome.response == REFUSAL


# What is no JSON object with a code, or is a redirect, is not Fivetran's word.
STRANGERS: dict[str, tuple[int, str | bytes]] = {
    "redirect": (307, SUCCESS),
    "captive portal": (200, HTML),
    "firewall": (403, HTML),
    "filter": (408, HTML),
    "gateway": (502, HTML),
    "busy gateway": (429, HTML),
    "nothing": (204, ""),
    "list": (200, f"[{SUCCESS}]"),
    "null": (200, "null"),
    "no code": (401, '{"message": "Success"}'),
    "code is a number": (400, '{"code": 7}'),
    "half an object": (200, SUCCESS[:-1]),
    "invalid UTF-8": (200, b'{"code": "Success", "x": "\xff"}'),
    "UTF-16": (200, SUCCESS.encode("utf-16")),
    "nested too deep": (200, '{"code": "Success", "x": ' + "[" * 50_000),
    "too large": (200, SUCCESS.ljust(64 * 1024 + 1)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_fivetrans_word_proves_nothing(name: str) -> None:
    status, body = STRANGERS[name]
    outcome = judge(status, body)
    assert (outcome.exit_code, outcome.refused) == (249, False)
    assert outcome.retry == (status in (429, 502))
    assert outcome.reason.startswith(
        f"HTTP {status}, not an answer of Fivetran's API; "
    )
    assert "proxy, a firewall" in outcome.advice
    assert outcome.advice.startswith("See status.fivetran.com. ") == (status == 502)
    assert "key" not in outcome.advice
    stored = json.loads(outcome.response)
    assert (stored["code"], stored["message"]) == ("InvalidResponse", outcome.reason)


def test_the_beginning_of_a_page_is_told_and_kept() -> None:
    text = "<title>\n Sign in</title>" + "x" * 100_000
    outcome = judge(200, text)
    assert outcome.reason.endswith("; it begins: <title> Sign in</title>" + "x" * 77)
    body = json.loads(outcome.response)["body"]
    assert text.startswith(body)
    assert len(body) == 4096
    assert judge(204, "").reason.endswith("; it begins: nothing")


def test_an_answer_of_up_to_64_kib_is_kept_as_fivetran_sent_it() -> None:
    sent = '{ "code":"Success",\t"message" : "запущено \\u2713 \\ud800",\n"x":1e999}'
    for body in (sent, sent.encode().ljust(64 * 1024).decode()):
        outcome = judge(200, body)
        assert (outcome.exit_code, outcome.response) == (0, body)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60),
        (" 2 ", 2),
        ("9" * 5_000, float("inf")),
        ("0", 0),
        ("1.5", 0),
        ("-1", 0),
        ("²", 0),
        ("Fri, 31 Dec 2060 23:59:59 GMT", 0),
    ],
)
def test_retry_after_counts_if_it_is_in_seconds(value: str, seconds: float) -> None:
    for status, body in ((429, REFUSAL), (503, HTML)):
        outcome = judge(status, body, Retry_After=value)
        assert (outcome.retry, outcome.retry_after) == (True, seconds)


def test_a_retry_after_on_what_is_final_is_ignored() -> None:
    assert not judge(404, REFUSAL, Retry_After="1").retry
    assert not judge(200, SUCCESS, Retry_After="1").retry


def test_no_secret_is_uncovered_where_a_text_is_cut() -> None:
    token = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
    for secret in (API_KEY, API_SECRET, token):
        for length in (0, 90, 390, 4090):
            text = "x" * length + secret
            message = json.dumps({"code": "Refusal", "message": text})
            for body in (message, text):
                outcome = judge(403, body, X_Request_Id="x" * (length % 300) + secret)
                kept = script.hide(outcome.response)
                for shown in (outcome.reason, kept):
                    assert secret[:6] not in shown
        assert "***" in judge(403, secret).reason


def test_the_longest_secret_is_hidden_first() -> None:
    script.read_inputs(["--api-key=abcdefXYZ123", "--api-secret=abcdef"], INPUTS)
    assert script.hide("abcdefXYZ123 abcdef") == "*** ***"


def test_a_short_secret_does_not_blot_out_words() -> None:
    script.read_inputs(["--api-key=sync", "--api-secret=start"], INPUTS)
    assert script.hide("The sync was started") == "The sync was started"


def test_long_messages_are_cut() -> None:
    body = json.dumps({"code": "x" * 500, "message": "long " * 10_000})
    assert len(judge(403, body, X_Request_Id="x" * 5_000).reason) == 500
