"""What an answer means: exit code, what it says of the sync, what to do, what to keep.

judge() is a pure function; that runs end accordingly is shown in test_truth.py.
"""

import json

import pytest
from conftest import API_KEY, API_SECRET, INPUTS, TOKEN
from faults import HTML, REFUSAL, SUCCESS

import fivetran_execute_sync as script
from fivetran_execute_sync import judge


@pytest.fixture(autouse=True)
def known_secrets():
    script.read_inputs([], INPUTS)
    yield
    script.SECRETS.clear()


@pytest.mark.parametrize("status", [200, 201, 299])
def test_2xx_with_success_is_the_only_answer_that_starts_a_sync(status):
    outcome = judge(status, {"X-Request-Id": "r-1"}, SUCCESS)
    assert (outcome.exit_code, outcome.refused, outcome.retry) == (0, False, False)
    assert outcome.reason == f"HTTP {status}, Success: on its way (request ID r-1)"


@pytest.mark.parametrize(
    ("status", "exit_code", "advice"),
    [
        (400, 201, "Fix what it names, or get a newer version of this script."),
        (401, 200, "Check the API key and secret."),
        (403, 200, "Give the API key a role that may sync this connector."),
        (404, 204, "Copy the connector ID from its Setup tab in Fivetran."),
        (408, 201, "Fix what it names, or get a newer version of this script."),
        (409, 203, "Wait until the current sync has ended, then run this again."),
        (429, 249, "the account has used up its requests for this hour."),
        (499, 201, "Fix what it names, or get a newer version of this script."),
    ],
)
def test_4xx_of_fivetran_is_a_refusal(status, exit_code, advice):
    for body in (REFUSAL, SUCCESS):
        outcome = judge(status, {}, body)
        assert (outcome.exit_code, outcome.refused) == (exit_code, True)
        assert outcome.retry == (status == 429)
        assert outcome.advice.endswith(advice)
        assert outcome.response == body.decode()
    told = "Refusal: What Fivetran says."
    assert judge(status, {}, REFUSAL).reason == f"HTTP {status}, {told}"


@pytest.mark.parametrize("status", [199, 200, 299, 500, 599, 600])
def test_whatever_else_fivetran_says_leaves_it_open(status):
    outcome = judge(status, {}, REFUSAL)
    assert (outcome.exit_code, outcome.refused) == (249, False)
    assert outcome.retry == (status in (500, 599))
    assert outcome.advice == "See status.fivetran.com, then run this again."
    assert outcome.response == REFUSAL.decode()


# What is no JSON object with a code, or is a redirect, is not Fivetran's word.
STRANGERS = {
    "redirect": (307, SUCCESS),
    "captive portal": (200, HTML),
    "firewall": (403, HTML),
    "filter": (408, HTML),
    "gateway": (502, HTML),
    "busy gateway": (429, HTML),
    "nothing": (204, b""),
    "list": (200, b"[%b]" % SUCCESS),
    "no code": (401, b'{"message": "Success"}'),
    "code is a number": (400, b'{"code": 7}'),
    "half an object": (200, SUCCESS[:-1]),
    "invalid UTF-8": (200, b'{"code": "Success", "x": "\xff"}'),
    "UTF-16": (200, SUCCESS.decode().encode("utf-16")),
    "nested too deep": (200, b'{"code": "Success", "x": ' + b"[" * 50_000),
    "too large": (200, SUCCESS.ljust(64 * 1024 + 1)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_fivetrans_word_proves_nothing(name):
    status, body = STRANGERS[name]
    outcome = judge(status, {}, body)
    assert (outcome.exit_code, outcome.refused) == (249, False)
    assert outcome.retry == (status in (429, 502))
    assert outcome.reason.startswith(
        f"HTTP {status}, not an answer of Fivetran's API; "
    )
    look = "Look for a proxy, a firewall or a sign-in page in between."
    fivetran_first = "See status.fivetran.com. " if status == 502 else ""
    assert outcome.advice == fivetran_first + look
    stored = json.loads(outcome.response)
    assert (stored["code"], stored["message"]) == ("InvalidResponse", outcome.reason)


def test_the_beginning_of_a_page_is_told_and_kept():
    page = "<title>\n Sign in</title>" + "x" * 100_000
    outcome = judge(200, {}, page.encode())
    assert outcome.reason.endswith("; it begins: <title> Sign in</title>" + "x" * 77)
    assert json.loads(outcome.response)["body"] == page[:4096]
    assert judge(204, {}, b"").reason.endswith("; it begins: nothing")


def test_an_answer_of_64_kib_is_still_fivetrans():
    body = SUCCESS.ljust(64 * 1024)
    assert judge(200, {}, body).response == body.decode()


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
def test_retry_after_counts_if_it_is_in_seconds(value, seconds):
    for status, body in ((429, REFUSAL), (503, HTML)):
        outcome = judge(status, {"Retry-After": value}, body)
        assert (outcome.retry, outcome.retry_after) == (True, seconds)
    assert not judge(404, {"Retry-After": value}, REFUSAL).retry


def test_no_secret_is_uncovered_where_a_text_is_cut():
    for secret in (API_KEY, API_SECRET, TOKEN):
        for length in (0, 60, 90, 370, 390, 4090):
            text = "x" * length + secret
            page = text.encode()
            for body in (page, b'{"code": "x", "message": "%b"}' % page):
                outcome = judge(403, {"X-Request-Id": text}, body)
                kept = json.loads(script.hide(outcome.response)).get("body", "")
                assert secret[:6] not in outcome.reason + kept
        assert "***" in judge(403, {}, secret.encode()).reason


def test_the_longest_secret_is_hidden_first():
    script.read_inputs(["--api-key=abcdefXYZ123", "--api-secret=abcdef"], INPUTS)
    assert script.hide("abcdefXYZ123 abcdef") == "*** ***"


def test_a_short_secret_does_not_blot_out_words():
    script.read_inputs(["--api-key=sync", "--api-secret=start"], INPUTS)
    assert script.hide("The sync was started") == "The sync was started"


def test_long_messages_are_cut():
    body = json.dumps({"code": "x" * 500, "message": "long " * 10_000}).encode()
    assert len(judge(403, {"X-Request-Id": "x" * 5_000}, body).reason) == 500
