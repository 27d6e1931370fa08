"""What an answer or an error means; that runs end accordingly is shown elsewhere."""

import json
import re
import ssl

import harness
import pytest
import requests
from faults import HTML, REFUSAL, SUCCESS
from hypothesis import given
from hypothesis import strategies as st

from fivetran_execute_sync import Outcome, hide, judge_answer, judge_error, list_secrets

OUTAGE = "Check status.fivetran.com."
OTHER = "Do what Fivetran says, or look for a newer version of this script."
MOVED = "Check the connector ID, and look for a newer version of this script."
# What Fivetran says by these statuses: exit code, advice, whether it is a refusal.
FIVETRANS = {
    199: (249, OUTAGE, False),
    200: (0, "", False),
    299: (0, "", False),
    302: (249, OUTAGE, False),
    400: (201, OTHER, True),
    401: (200, "Check the API key and secret: they may be outdated or swapped.", True),
    403: (200, "Give the API key permission to sync this connector.", True),
    404: (204, MOVED, True),
    409: (203, "Check in Fivetran what the connector is doing.", True),
    429: (249, "The account has reached a limit: run this again later.", True),
    499: (201, OTHER, True),
    500: (249, OUTAGE, False),
}


@pytest.mark.parametrize("status", FIVETRANS)
def test_only_2xx_with_success_starts_a_sync_and_only_4xx_refuses_it(status):
    said = {SUCCESS: "Success: on its way", REFUSAL: "Refusal: No, says Fivetran"}
    for body, words in said.items():
        outcome = judge_answer(status, {"X-Request-Id": "r-1"}, body.decode())
        undocumented = body == REFUSAL and status in (200, 299)
        expected = FIVETRANS[500 if undocumented else status]
        assert (outcome.exit_code, outcome.advice, outcome.refused) == expected
        assert outcome.reason == f"HTTP {status}, {words} (X-Request-Id: r-1)"
        assert outcome.response_text == body.decode()


STRANGERS = {
    "sign-in page": (200, HTML.decode()),
    "firewall": (403, HTML.decode()),
    "list": (200, f"[{SUCCESS.decode()}]"),
    "no code": (401, '{"message": "Success"}'),
    "code is a number": (400, '{"code": 7}'),
    "brackets without end": (403, "[" * 60_000),
    "nothing": (204, "\r\n"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_fivetrans_word_proves_nothing(name):
    status, text = STRANGERS[name]
    outcome = judge_answer(status, {}, text)
    assert (outcome.exit_code, outcome.refused) == (249, False)
    told = f"HTTP {status}, not an answer from Fivetran's API: {text}"
    assert outcome.reason == told[:400].rstrip(": \r\n")
    look = "Look for a proxy, firewall or sign-in page; see status.fivetran.com."
    assert outcome.advice == look
    stored = {"code": "InvalidResponse", "message": outcome.reason, "body": text}
    assert json.loads(outcome.response_text) == stored


def test_retry_after_counts_if_it_is_in_seconds():
    for value, seconds in ("60", 60), ("1.5", 0), ("²", 0), ("Fri, 31 Dec 2060", 0):
        for status, body in ((503, HTML), (500, REFUSAL), (429, REFUSAL)):
            outcome = judge_answer(status, {"Retry-After": value}, body.decode())
            assert outcome.retry_after == seconds
        assert outcome.reason.endswith(f" (Retry-After: {value})")


def test_a_reason_is_one_short_line_without_its_last_full_stop():
    told = {'"Try\\n later...\\n"': ": Try later", "null": "", '["x"]': ": ['x']"}
    told[json.dumps("x" * 5_000)] = ": " + "x" * 387
    for message, words in told.items():
        answer = f'{{"code": "C", "message": {message}}}'
        assert judge_answer(500, {}, answer).reason == f"HTTP 500, C{words}"


def test_an_error_is_told_with_its_type_and_only_an_oserror_with_its_text():
    for error, words in (
        (requests.Timeout("over"), "Timeout, over"),
        (ValueError("secret"), "ValueError"),
        (ssl.SSLError(1, "x" * 1_000), "SSLError, " + "x" * 350),
    ):
        lost, none = judge_error(error, True), judge_error(error, False)
        reason = f"No complete answer from api.fivetran.com: {words}"
        assert lost == Outcome(249, reason[:400], OUTAGE)
        assert none.reason.startswith(f"No connection to api.fivetran.com: {words}")
    advice = "Check the network, and HTTPS_PROXY if it needs a proxy."
    assert judge_error(requests.Timeout(), False)[2:] == (advice, "", 0, False)


def test_the_first_cause_is_told():
    error = requests.ConnectionError("http://user:pa55@proxy")
    error.__context__ = OSError("first")
    assert judge_error(error, False).reason.endswith(": ConnectionError, first")
    error.__cause__ = ValueError("a wrapper that urllib3 links to nothing")
    assert judge_error(error, True).reason.endswith(": OSError, first")
    error.__cause__ = None  # "from None": urllib3 1.26 hides an error of its own so
    assert " ConnectionError, http" in judge_error(error, True).reason


def test_secrets_are_hidden_in_each_form_and_words_are_not():
    secrets = list_secrets(harness.API_KEY, harness.API_SECRET)
    forms = [harness.ENCODED + end for end in ("", "=", "%3D", "\\u003d")]
    for form in (harness.API_KEY, harness.API_SECRET, *forms):
        assert re.fullmatch(r"<[*]{3}.{0,6}>", hide(f"<{form}>", secrets))
    assert hide("The sync was started", ["starte", "sync"]) == "The sync was ***d"


parts = st.text(max_size=400)
value = st.recursive(parts | st.none() | st.booleans(), st.lists, max_leaves=3)
code = st.sampled_from(["Success", "AuthFailed"]) | value
body = st.fixed_dictionaries({}, optional={"code": code, "message": value})
headers = st.dictionaries(st.just("Retry-After"), parts | st.just("9" * 999))


@given(st.integers(100, 599), headers, body.map(json.dumps) | parts)
def test_an_outcome_agrees_with_itself(status, headers, text):
    outcome = judge_answer(status, headers, text)
    assert outcome.exit_code in harness.EXIT_CODES - {1, 2, 130, 143}
    assert outcome.exit_code != 0 or 200 <= status < 300
    assert not outcome.refused or 400 <= status < 500
    assert outcome.refused or outcome.exit_code in (0, 249)
    assert isinstance(json.loads(outcome.response_text)["code"], str)
    assert outcome.retry_after >= 0
