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


# What Fivetran says by these statuses: exit code, sync, and a part of the advice.
FIVETRANS = {
    199: (249, MAYBE_STARTED, "Check status.fivetran.com, and whether "),
    200: (0, STARTED, ""),
    299: (0, STARTED, ""),
    400: (201, NOT_STARTED, "Fix what the message names, or get a newer version"),
    401: (200, NOT_STARTED, "Check the API key and secret."),
    403: (200, NOT_STARTED, "Give the API key permission to sync this connector."),
    404: (204, NOT_STARTED, "Check the connector ID on the connector's Setup tab."),
    409: (203, NOT_STARTED, "Run this again when the current sync has ended."),
    429: (249, NOT_STARTED, "Run this again later: the account has reached a request"),
    499: (201, NOT_STARTED, "Fix what the message names, or get a newer version"),
    500: (249, MAYBE_STARTED, "Check status.fivetran.com, and whether "),
}


@pytest.mark.parametrize("status", FIVETRANS)
def test_only_2xx_with_success_starts_a_sync_and_only_4xx_refuses_it(status):
    said = {SUCCESS: "Success: on its way", REFUSAL: "Refusal: No, says Fivetran"}
    for body, words in said.items():
        outcome = judge(status, body, {"X-Request-Id": "r-1"})
        unclear = body == REFUSAL and status in (200, 299)
        exit_code, sync, advice = FIVETRANS[500 if unclear else status]
        given = (outcome.exit_code, outcome.sync, bool(outcome.advice))
        assert given == (exit_code, sync, bool(advice))
        assert outcome.advice.startswith(advice)
        assert outcome.reason == f"HTTP {status}, {words} (request ID r-1)"
        assert outcome.to_store == body.decode()


# What is no JSON object with a code, or is a redirect, is not Fivetran's word.
STRANGERS = {
    "redirect": (307, SUCCESS),
    "firewall": (403, HTML),
    "gateway": (502, HTML),
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
    assert f"HTTP {status}, not an answer from Fivetran's API; it " in outcome.reason
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


def test_retry_after_counts_if_it_is_in_seconds():
    for value, seconds in (" 60 ", 60), ("1.5", 0), ("²", 0), ("Fri, 31 Dec 2060", 0):
        for status, body in ((429, REFUSAL), (503, HTML), (500, REFUSAL)):
            assert judge(status, body, {"Retry-After": value}).retry_after == seconds


def test_a_reason_is_cut_and_has_no_full_stop_of_its_own_and_no_message_but_text():
    body = b'{"code": "x", "message": "Try later...\\n"}'
    reason = judge(404, body, {"X-Request-Id": "r" * 5_000}).reason
    assert reason == f"HTTP 404, x: Try later (request ID {'r' * 80})"
    reason = judge(403, b'{"code": "%b"}' % (b"x" * 500)).reason
    assert reason == "HTTP 403, " + "x" * 390
    assert len(judge_error(OSError("x" * 1_000), False, []).reason) == 400
    for message in (b"null", b"7", b'["x"]', b'""'):
        reason = judge(500, b'{"code": "x", "message": %b}' % message).reason
        assert reason == "HTTP 500, x"


def test_an_error_leaves_it_open_once_the_body_was_sent(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    network = "Check the network, and HTTPS_PROXY if it needs a proxy."
    again = "Run this again; at worst, that restarts the sync."
    for error, told in (
        (requests.Timeout("over"), "over"),
        (requests.Timeout(), "Timeout"),
        (ssl.SSLError(1, "bad"), "bad"),
        (ValueError("secret"), "ValueError"),
    ):
        reason = f"No complete answer from api.fivetran.com: {told}"
        expected = (249, MAYBE_STARTED, reason, again)
        assert judge_error(error, True, [])[:4] == expected
    reason = "No connection to api.fivetran.com: over"
    expected = (249, NOT_STARTED, reason, network)
    assert judge_error(requests.Timeout("over"), False, [])[:4] == expected


def test_the_proxy_is_told_if_there_is_one(monkeypatch):
    proxy = "http://p:1"
    told = [{"https_proxy": proxy}, {"ALL_PROXY": proxy}]
    spared = {"HTTPS_PROXY": proxy, "NO_PROXY": "fivetran.com"}
    for variables in (*told, spared, {"HTTPS_PROXY": ""}, {"HTTP_PROXY": proxy}):
        monkeypatch.setattr(os, "environ", variables)
        reason = judge_error(OSError("x"), False, []).reason
        words = ", through the proxy in HTTPS_PROXY or ALL_PROXY: x"
        assert (words in reason) == (variables in told)


def test_the_first_cause_is_told():
    error = OSError("then")
    error.__context__ = OSError("first")
    assert judge_error(error, False, []).reason.endswith(": first")
    error.__cause__ = ValueError("a wrapper that urllib3 links to nothing")
    assert judge_error(error, False, []).reason.endswith(": first")
    error.__cause__ = None  # "from None": urllib3 1.26 hides an error of its own so
    assert judge_error(error, False, []).reason.endswith(": then")


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
    as_json = st.builds(json.dumps, body, ensure_ascii=st.booleans())
    content = (as_json | echo).map(utf_8) | st.binary(max_size=99)
    headers = {"Retry-After": echo | st.just("9" * 999), "X-Request-Id": echo}
    status = st.integers(100, 599) | st.sampled_from([200, 401, 404, 429, 503])
    optional = st.fixed_dictionaries({}, optional=headers)
    return draw(status), draw(optional), draw(content), secrets


@given(answers())
def test_an_outcome_agrees_with_itself_and_shows_no_secret(answer):
    outcome = judge_answer(*answer)
    status, _, _, secrets = answer
    assert (outcome.sync == STARTED) == (outcome.exit_code == 0)
    assert outcome.sync != STARTED or 200 <= status < 300
    assert outcome.sync != NOT_STARTED or 400 <= status < 500
    assert outcome.sync != MAYBE_STARTED or outcome.exit_code == 249
    assert outcome.exit_code in harness.EXIT_CODES - {1, 2, 130, 143}
    assert outcome.reason == " ".join(outcome.reason.split()).rstrip(".")
    stored = json.loads(outcome.to_store)
    assert isinstance(stored["code"], str)
    shown = outcome.reason + outcome.to_store + stored.get("body", "")
    assert not any(secret in shown for secret in secrets)
    assert 0 <= outcome.retry_after < float("inf")
