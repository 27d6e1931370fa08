"""What an answer or an error means: exit code, sync, reason, advice, what is stored.

Judging is a pure function; that runs end accordingly is shown in test_truth.py.
"""

import json
import os
import ssl

import harness
import pytest
import requests
from faults import HTML, REFUSAL, SUCCESS
from harness import MAYBE_STARTED, NOT_STARTED, STARTED
from hypothesis import given
from hypothesis import strategies as st

from fivetran_execute_sync import hide, judge_answer, judge_error, list_secrets

SECRETS = list_secrets(harness.API_KEY, harness.API_SECRET)


def judge(status, body, headers=None, secrets=SECRETS):
    return judge_answer(status, headers or {}, body, secrets)


# Answers ---------------------------------------------------------------------------------

OTHER = "Fix what the message names, or get a newer version of this script."
FIRST = (
    "Check status.fivetran.com, and whether the connector is syncing: "
    "if it is, running this again restarts the sync."
)
LATER = "Run this again later: the account has reached a request limit."
# What follows from Success with this status; from any other code, the same but for 2xx.
FIVETRANS = {
    200: (0, STARTED, ""),
    299: (0, STARTED, ""),
    400: (201, NOT_STARTED, OTHER),
    401: (200, NOT_STARTED, "Check the API key and secret."),
    403: (200, NOT_STARTED, "Give the API key permission to sync this connector."),
    404: (204, NOT_STARTED, "Check the connector ID on the connector's Setup tab."),
    409: (203, NOT_STARTED, "Run this again when the current sync has ended."),
    429: (249, NOT_STARTED, LATER),
    499: (201, NOT_STARTED, OTHER),
    199: (249, MAYBE_STARTED, FIRST),
    500: (249, MAYBE_STARTED, FIRST),
}


@pytest.mark.parametrize("status", FIVETRANS)
def test_only_2xx_with_success_starts_a_sync_and_only_4xx_refuses_it(status):
    for body, said in (
        (SUCCESS, "Success: on its way"),
        (REFUSAL, "Refusal: No, says Fivetran"),
    ):
        outcome = judge(status, body, {"X-Request-Id": "r-1"})
        unclear = body == REFUSAL and status in (200, 299)
        expected = FIVETRANS[500 if unclear else status]
        assert (outcome.exit_code, outcome.sync, outcome.advice) == expected
        assert outcome.reason == f"HTTP {status}, {said} (request ID r-1)"
        assert outcome.to_store == body.decode()


# What is no JSON object with a code, or is a redirect, is not Fivetran's word.
STRANGERS = {
    "redirect": (307, SUCCESS),
    "firewall": (403, HTML),
    "gateway": (502, HTML),
    "nothing": (204, b""),
    "list": (200, b"[%b]" % SUCCESS),
    "no code": (401, b'{"message": "Success"}'),
    "code is a number": (400, b'{"code": 7}'),
    "half an object": (200, SUCCESS[:-1]),
    "UTF-16": (200, SUCCESS.decode().encode("utf-16")),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_fivetrans_word_proves_nothing(name):
    status, body = STRANGERS[name]
    outcome = judge(status, body)
    assert (outcome.exit_code, outcome.sync) == (249, MAYBE_STARTED)
    what = f"HTTP {status}, not an answer from Fivetran's API; it "
    assert outcome.reason.startswith(what)
    look = "Look for a proxy, a firewall or a sign-in page in the network."
    fivetran_first = "See status.fivetran.com. " if status == 502 else ""
    assert outcome.advice == fivetran_first + look
    stored = json.loads(outcome.to_store)
    assert (stored["code"], stored["message"]) == ("InvalidResponse", outcome.reason)


def test_the_beginning_of_a_page_is_told_and_kept():
    page = "<title>\n Sign in</title>" + "x" * 100_000
    outcome = judge(200, page.encode())
    assert outcome.reason.endswith("; it begins: <title> Sign in</title>" + "x" * 77)
    assert json.loads(outcome.to_store)["body"] == page[:4096]
    assert judge(204, b"\r\n").reason.endswith("; it is empty")


@pytest.mark.parametrize(
    ("value", "seconds"), [(" 60 ", 60), ("1.5", 0), ("²", 0), ("Fri, 31 Dec 2060", 0)]
)
def test_retry_after_counts_if_it_is_in_seconds(value, seconds):
    for status, body in ((429, REFUSAL), (503, HTML), (500, REFUSAL)):
        assert judge(status, body, {"Retry-After": value}).retry_after == seconds


@pytest.mark.parametrize("message", [None, 7, ["x"], ""])
def test_a_message_that_is_no_text_is_left_out(message):
    body = json.dumps({"code": "Oops", "message": message}).encode()
    assert judge(500, body).reason == "HTTP 500, Oops"


def test_a_reason_has_no_full_stop_of_its_own_and_is_cut():
    body = b'{"code": "x", "message": "Try later...\\n"}'
    reason = judge(404, body, {"X-Request-Id": "r" * 5_000}).reason
    assert reason == f"HTTP 404, x: Try later (request ID {'r' * 80})"
    reason = judge(403, b'{"code": "%b"}' % (b"x" * 500)).reason
    assert reason == "HTTP 403, " + "x" * 390
    assert len(judge_error(OSError("x" * 1_000), False, []).reason) == 400


# Errors ----------------------------------------------------------------------------------

AGAIN = "Run this again; at worst, that restarts the sync."
NETWORK = "Check the network, and HTTPS_PROXY if it needs a proxy."


@pytest.mark.parametrize(
    ("error", "sent", "reason", "advice"),
    [
        (ValueError("secret"), True, "No complete answer from {}: ValueError", AGAIN),
        (ssl.SSLError(1, "bad"), True, "No complete answer from {}: bad", AGAIN),
        (requests.Timeout("over"), False, "No connection to {}: over", NETWORK),
        (requests.Timeout(), False, "No connection to {}: Timeout", NETWORK),
    ],
)
def test_an_error_leaves_it_open_once_the_body_was_sent(
    monkeypatch, error, sent, reason, advice
):
    monkeypatch.setattr(os, "environ", {})
    outcome = judge_error(error, sent, [])
    assert outcome.exit_code == 249
    assert outcome.sync == (MAYBE_STARTED if sent else NOT_STARTED)
    assert outcome.reason == reason.format("api.fivetran.com")
    assert outcome.advice == advice


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"HTTPS_PROXY": ""}, False),
        ({"https_proxy": "http://p:1"}, True),
        ({"ALL_PROXY": "http://p:1"}, True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fivetran.com"}, False),
        ({"HTTP_PROXY": "http://p:1"}, False),
    ],
)
def test_the_proxy_is_told_if_there_is_one(monkeypatch, variables, told):
    monkeypatch.setattr(os, "environ", variables)
    reason = judge_error(OSError("x"), False, []).reason
    assert (", through the proxy in HTTPS_PROXY or ALL_PROXY: x" in reason) == told


def test_no_name_is_looked_up_to_find_out_whether_there_is_a_proxy(monkeypatch):
    """As a Mac does it in these functions; the time may be over by then."""

    def look_up(*_):
        raise AssertionError("a lookup that can take half a minute")

    for module in ("urllib.request", "requests.utils", "fivetran_execute_sync"):
        for name in ("getproxies", "proxy_bypass", "should_bypass_proxies"):
            monkeypatch.setattr(f"{module}.{name}", look_up, raising=False)
    assert judge_error(requests.Timeout("timed out"), False, []).exit_code == 249


def test_the_first_cause_is_told():
    error = OSError("then")
    error.__context__ = OSError("first")
    assert judge_error(error, False, []).reason.endswith(": first")
    error.__cause__ = ValueError("a wrapper that urllib3 links to nothing")
    assert judge_error(error, False, []).reason.endswith(": first")
    error.__cause__ = None  # "from None": urllib3 1.26 hides an error of its own so
    assert judge_error(error, False, []).reason.endswith(": then")


# Secrets ---------------------------------------------------------------------------------


def test_the_words_of_others_do_not_show_a_password():
    for password in ("p@ss wo//rd", "pa\n55"):
        error = OSError(f"no way to http://user:{password}@proxy with {SECRETS[0]}")
        told = judge_error(error, False, SECRETS).reason
        assert told.endswith(": no way to http://***@proxy with ***")


def test_no_secret_is_uncovered_where_a_text_is_cut():
    for secret in SECRETS:
        for length in (0, 60, 70, 90, 370, 390, 4090):
            text = "x" * length + secret
            for body in (text, json.dumps({"code": "x", "message": text})):
                outcome = judge(403, body.encode(), {"X-Request-Id": text})
                assert secret[:6] not in outcome.reason + outcome.to_store[:4200]


def test_secrets_are_hidden_whole():
    spaced = list_secrets("the key", "top  secret\twords")  # before spaces are folded
    reason = judge(403, b"<p>top  secret\twords</p>", secrets=spaced).reason
    assert reason.endswith("; it begins: <p>***</p>")
    one_in_the_other = list_secrets("abcdef", "abcdefXYZ123")
    assert hide("abcdefXYZ123 abcdef", one_in_the_other) == "*** ***"
    assert SECRETS == [harness.ENCODED, harness.API_SECRET, harness.API_KEY]
    short = list_secrets("starte", "sync")  # of fewer than six, it may be a word
    assert hide("The sync was started", short) == "The sync was ***d"


# Whatever comes --------------------------------------------------------------------------

secret_texts = st.text("€ßΩ7", min_size=6, max_size=12)  # no message has these letters


@st.composite
def answers(draw):
    """Status, headers, content and the secrets that may be echoed in them."""
    secrets = list_secrets(draw(secret_texts), draw(secret_texts))
    parts = st.text(max_size=9) | st.sampled_from(secrets)
    echo = st.lists(parts, max_size=5).map("".join).map(lambda text: text[:4000])
    code = st.sampled_from(["Success", "AuthFailed"]) | echo | st.integers()
    value = st.recursive(echo | st.none() | st.booleans(), st.lists, max_leaves=3)
    body = st.fixed_dictionaries({}, optional={"code": code, "message": value})
    utf_8 = lambda text: text.encode(errors="replace")
    escaped = draw(st.booleans())
    as_json = body.map(lambda fields: utf_8(json.dumps(fields, ensure_ascii=escaped)))
    content = as_json | echo.map(utf_8) | st.binary(max_size=99)
    headers = {"Retry-After": echo | st.just("9" * 999), "X-Request-Id": echo}
    status = st.integers(100, 599) | st.sampled_from([200, 401, 404, 429, 503])
    optional = st.fixed_dictionaries({}, optional=headers)
    return draw(status), draw(optional), draw(content), secrets


@given(answers())
def test_an_outcome_agrees_with_itself_and_shows_no_secret(answer):
    outcome = judge_answer(*answer)
    status, _, _, secrets = answer
    assert (outcome.sync == STARTED) == (outcome.exit_code == 0)
    if outcome.sync == STARTED:
        assert 200 <= status < 300
    elif outcome.sync == NOT_STARTED:
        assert 400 <= status < 500
        assert outcome.exit_code in (200, 201, 203, 204, 249)
    else:
        assert (outcome.sync, outcome.exit_code) == (MAYBE_STARTED, 249)
    assert outcome.reason == " ".join(outcome.reason.split())
    assert not outcome.reason.endswith(".")
    stored = json.loads(outcome.to_store)
    assert isinstance(stored["code"], str)
    shown = outcome.reason + outcome.to_store + stored.get("body", "")
    assert not any(secret in shown for secret in secrets)
    assert 0 <= outcome.retry_after < float("inf")
