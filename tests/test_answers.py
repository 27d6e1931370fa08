"""Every answer of a server, sensible or not, ends with the right exit code and record."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import zlib
from typing import Any

import pytest
from conftest import API_KEY, API_SECRET, CONNECTOR_ID, Run, Runner, execute
from fake_fivetran import FakeFivetran, Fault
from faults import reply, send

MAY_RUN = "may have been started"


def refusal(code: str = "Refused", message: str = "No.") -> str:
    return json.dumps({"code": code, "message": message})


def one_error(result: Run) -> str:
    """Return the only line on stderr."""
    (line,) = result.err.splitlines()
    return line


REFUSALS = {
    300: (201, "not followed"),
    301: (201, "not followed"),
    302: (201, "not followed"),
    307: (201, "not followed"),
    308: (201, "not followed"),
    400: (201, "does not take this request"),
    401: (200, "FIVETRAN_API_KEY and FIVETRAN_API_SECRET"),
    402: (201, "does not take this request"),
    403: (200, "role"),
    404: (204, "Setup tab"),
    405: (201, "does not take this request"),
    406: (201, "does not take this request"),
    409: (203, "under way"),
    415: (201, "does not take this request"),
    422: (201, "does not take this request"),
    451: (201, "does not take this request"),
    501: (249, "status.fivetran.com"),
    599: (249, "status.fivetran.com"),
    600: (249, "does not answer like this"),
    999: (249, "does not answer like this"),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_final_and_says_what_to_do(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    code, advice = REFUSALS[status]
    answer = {"code": "Some_Code", "message": "What Fivetran says."}
    fivetran.faults.append(reply(status, json.dumps(answer)))
    result = run()
    assert result.code == code
    line = one_error(result)
    assert f"HTTP {status}" in line
    assert "Some_Code: What Fivetran says. " in line
    assert "request ID r-1" in line
    assert advice in line
    assert result.response == answer
    assert result.record[0] == CONNECTOR_ID
    assert len(fivetran.requests) == 1


def test_a_wrong_secret_names_the_variables_and_the_base64_form(run: Runner) -> None:
    result = run(FIVETRAN_API_SECRET="something else")
    assert result.code == 200
    line = one_error(result)
    for part in (
        "HTTP 401",
        "AuthFailed",
        "FIVETRAN_API_KEY",
        "FIVETRAN_API_SECRET",
        "Base64",
    ):
        assert part in line
    assert result.response["code"] == "AuthFailed"


def test_an_unknown_connector_says_where_its_id_is_found(run: Runner) -> None:
    result = run(FIVETRAN_CONNECTOR_ID="no_such_connector")
    assert result.code == 204
    assert "NotFound_Connection" in one_error(result)
    assert "Setup tab" in one_error(result)
    assert result.response["code"] == "NotFound_Connection"
    assert result.record[0] == "no_such_connector"


def test_the_outcome_stands_in_one_line_on_stderr_and_the_artifacts_on_stdout(
    run: Runner,
) -> None:
    result = run(FIVETRAN_CONNECTOR_ID="no_such_connector")
    doing, kept = result.out.splitlines()
    assert "Forcing a sync" in doing
    assert "force_sync.pickle" in kept
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_success_is_a_2xx_with_the_code_success(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    fivetran.faults.append(reply(status, '{"code": "Success", "more": [1, 2.5, null]}'))
    result = run()
    assert result.code == 0
    assert result.response == {"code": "Success", "more": [1, 2.5, None]}


@pytest.mark.parametrize("status", [301, 400, 401, 404, 409, 501])
def test_no_other_status_is_a_success_whatever_it_claims(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    fivetran.faults.append(reply(status, '{"code": "Success", "message": "trust me"}'))
    result = run()
    assert result.code == REFUSALS[status][0]
    assert result.response == {"code": "Success", "message": "trust me"}


OTHER_OBJECTS: list[dict[str, Any]] = [
    {},
    {"message": "no code"},
    {"code": "success"},
    {"code": "Success "},
    {"code": None},
    {"code": ["Success"]},
    {"code": 200, "message": {"a": 1}},
    {"code": "Failure", "message": "Nothing was started"},
    {"data": {"code": "Success"}},
]


@pytest.mark.parametrize("answer", OTHER_OBJECTS, ids=json.dumps)
def test_an_object_without_the_code_success_is_no_success(
    run: Runner, fivetran: FakeFivetran, answer: dict[str, Any]
) -> None:
    fivetran.faults.append(reply(200, json.dumps(answer)))
    result = run()
    assert result.code == 249
    assert MAY_RUN in one_error(result)
    assert "None" not in one_error(result) or None in answer.values()
    assert result.response == answer
    assert len(fivetran.requests) == 1


NONSENSE = {
    "HTML": "<!DOCTYPE html><title>Sign in to Wi-Fi</title>",
    "empty": "",
    "white space": " \n",
    "list": '[{"code": "Success"}]',
    "empty list": "[]",
    "null": "null",
    "string": '"Success"',
    "number": "200",
    "true": "true",
    "half an object": '{"code": "Success", "mess',
    "two objects": '{"code": "Success"}{"code": "Success"}',
    "single quotes": "{'code': 'Success'}",
    "invalid UTF-8": b'{"code": "Success", "message": "\xff\xfe"}',
    "UTF-16": '{"code": "Success"}'.encode("utf-16"),
    "nested 100,000 deep": '{"code": "Success", "x": '
    + "[" * 100_000
    + "]" * 100_000
    + "}",
    "objects nested 20,000 deep": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "NaN": '{"code": "Success", "x": NaN}',
    "Infinity": '{"code": "Success", "x": -Infinity}',
    "1e999": '{"code": "Success", "x": 1e999}',
    "control characters": "\x00\x1b[31m\x07",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_an_answer_that_is_no_json_object_is_no_success(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    body = NONSENSE[name]
    fivetran.faults.append(reply(200, body))
    result = run()
    assert result.code == 249
    assert "HTTP 200" in one_error(result)
    assert MAY_RUN in one_error(result)
    assert result.response["code"] == "InvalidResponse"
    assert re.search("[a-z]{4}", result.response["message"])
    text = body if isinstance(body, str) else body.decode(errors="replace")
    assert result.response["body"][:100] == text[:100]
    assert result.record[0] == CONNECTOR_ID
    assert len(fivetran.requests) == 1


def test_no_content_is_no_success(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    result = run()
    assert result.code == 249
    assert result.response["code"] == "InvalidResponse"
    assert len(fivetran.requests) == 1


@pytest.mark.parametrize("digits", [300, 4_000, 5_000, 100_000])
def test_numbers_of_thousands_of_digits_do_no_harm(
    run: Runner, fivetran: FakeFivetran, digits: int
) -> None:
    body = '{"code": "Success", "x": %s}' % ("9" * digits)
    fivetran.faults.append(reply(200, body))
    result = run()
    # Python takes no number of more than 4,300 digits: neither can those who read the file.
    assert result.code == (0 if digits < 4_300 else 249)
    assert result.response["code"] == (
        "Success" if digits < 4_300 else "InvalidResponse"
    )


@pytest.mark.parametrize("depth", [10, 40, 100, 300, 1_100, 5_000])
def test_any_depth_of_nesting_is_either_kept_or_told(
    run: Runner, fivetran: FakeFivetran, depth: int
) -> None:
    fivetran.faults.append(
        reply(200, '{"code": "Success", "x": ' + "[" * depth + "]" * depth + "}")
    )
    result = run()
    assert (result.code, result.response["code"]) in (
        (0, "Success"),
        (249, "InvalidResponse"),
    )
    assert result.code == 0 or depth > 40


def test_lone_surrogates_are_kept(run: Runner, fivetran: FakeFivetran) -> None:
    fivetran.faults.append(reply(200, '{"code": "Success", "message": "\\ud800!"}'))
    result = run()
    assert result.code == 0
    assert result.response == {"code": "Success", "message": "\ud800!"}
    assert r"\ud800!" in result.out


def test_html_with_a_refusing_status_keeps_the_exit_code_of_the_status(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(401, "<html>"))
    result = run()
    assert result.code == 200
    assert result.response["code"] == "InvalidResponse"
    assert result.response["body"] == "<html>"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://example.com/",
        "http://api.fivetran.com/",
        "/v1/elsewhere",
        "http://[",
        "",
        "//x",
    ],
)
def test_redirects_are_not_followed(
    run: Runner, fivetran: FakeFivetran, status: int, location: str
) -> None:
    body = refusal("Moved", "over there")
    fivetran.faults.append(reply(status, body, {"Location": location}))
    result = run()
    assert result.code == 201
    assert result.response == json.loads(body)
    assert fivetran.tunnels == ["api.fivetran.com:443"]
    assert len(fivetran.requests) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers_are_understood(
    run: Runner, fivetran: FakeFivetran, encoding: str
) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    body = compress(b'{"code": "Success", "message": "small"}')
    fivetran.faults.append(reply(200, body, {"Content-Encoding": encoding}))
    assert run().response == {"code": "Success", "message": "small"}


def test_what_claims_to_be_compressed_and_is_not_is_no_success(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(
        reply(200, '{"code": "Success"}', {"Content-Encoding": "gzip"})
    )
    result = run()
    assert result.code == 249
    assert result.response["code"] == "InvalidResponse"


def test_chunked_answers_are_understood(run: Runner, fivetran: FakeFivetran) -> None:
    chunks = (
        b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"code": "Success"}')
        + b"0\r\n\r\n"
    )
    fivetran.faults.append(
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    )
    assert run().response == {"code": "Success"}


def test_an_answer_that_ends_with_the_connection_is_understood(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(send(b'HTTP/1.0 200 OK\r\n\r\n{"code": "Success"}'))
    assert run().response == {"code": "Success"}


def test_interim_answers_are_passed_over(run: Runner, fivetran: FakeFivetran) -> None:
    interim = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    )
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"code": "Success"}'
    fivetran.faults.append(send(interim + answer))
    result = run()
    assert result.code in (0, 249)  # http.client knows 100, and takes 103 for an answer
    assert result.response["code"] in ("Success", "InvalidResponse")


GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status of words": b"HTTP/1.1 all right\r\n\r\n",
    "zeros": b"\0" * 1000,
    "endless header line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_not_http_is_no_success(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(send(GARBAGE[name]))
    result = run()
    assert result.code == 249
    assert len(result.err.splitlines()) == 1
    assert result.response["code"] == "InvalidResponse"
    assert len(fivetran.requests) == 1


# Size and time ---------------------------------------------------------------------------


def peak_memory_mib(run: Runner, *arguments: str) -> tuple[Run, float]:
    """Run the script under a process that measures its peak memory."""
    code = (
        "import resource, subprocess, sys;"
        "code = subprocess.run(sys.argv[1:]).returncode;"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(code)"
    )
    process = execute(
        [sys.executable, "-c", code, *run.command, *arguments],
        cwd=run.folder,
        env=run.environment,
    )
    *out, peak = process.stdout.splitlines(keepends=True)
    result = Run(
        process.returncode, "".join(out), process.stderr, run.folder, run.artifacts
    )
    return result, int(peak.split()[1]) / 1024


def pour(head: bytes, block: bytes, count: int) -> Any:
    """Send a head, then a block many times, for as long as it is taken."""

    def act(sock: Any) -> None:
        sock.sendall(head)
        for _ in range(count):
            sock.sendall(block)

    return Fault("answer", act)


MIB = 1024 * 1024


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join(compressor.compress(zeros) for _ in range(600)) + compressor.flush()


FLOODS = {
    "600 MiB": lambda: pour(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (600 * MIB), bytes(MIB), 600
    ),
    "600 MiB of JSON": lambda: pour(
        b'HTTP/1.1 200 OK\r\n\r\n{"code": "Success", "x": "', b"x" * MIB, 600
    ),
    "600 MiB in chunks": lambda: pour(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"100000\r\n" + bytes(MIB) + b"\r\n",
        600,
    ),
    "600 MiB of a chunk size": lambda: pour(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * MIB, 600
    ),
    "600 MiB of a header": lambda: pour(b"HTTP/1.1 200 OK\r\nX: ", b"x" * MIB, 600),
    "600 MiB behind a redirect": lambda: pour(
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: %d\r\n\r\n"
        % (600 * MIB),
        bytes(MIB),
        600,
    ),
    "gzip bomb": lambda: reply(200, gzip_bomb(), {"Content-Encoding": "gzip"}),
    "gzip bomb behind a redirect": lambda: reply(
        302, gzip_bomb(), {"Content-Encoding": "gzip", "Location": "/"}
    ),
    "1 MiB of small objects": lambda: reply(200, "[" + '{"":0},' * 149_000 + "0]"),
    "as many values as are read, as deep as is allowed": lambda: reply(
        200, '{"code":"Success","x":' + "[" * 48 + "0," * 60_000 + "0" + "]" * 48 + "}"
    ),
    "as many values as are read, too deep": lambda: reply(
        200,
        '{"code":"Success","x":' + "[" * 300 + "0," * 60_000 + "0" + "]" * 300 + "}",
    ),
    "as many names as are read": lambda: reply(
        200,
        '{"code":"Success",' + ",".join(f'"{n:x}":1' for n in range(13_000)) + "}",
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_no_answer_takes_the_memory_of_the_machine(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    fivetran.faults.append(FLOODS[name]())
    result, peak = peak_memory_mib(run, "--timeout=30")
    assert result.code in (0, 201, 249)
    assert len(fivetran.requests) == 1  # what is too large is not asked for again
    assert peak < 64
    assert result.response_path.stat().st_size < 8 * MIB


def test_a_long_message_is_understood_and_shown_in_part(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(200, refusal("Success", "long " * 20_000)))
    result = run()
    assert result.code == 0
    assert result.response["message"] == "long " * 20_000
    assert 300 < len(result.out.splitlines()[2]) < 700


# What is printed -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400])
def test_a_message_is_shown_as_one_line_of_plain_text(
    run: Runner, fivetran: FakeFivetran, status: int
) -> None:
    message = "a\nb\r\x1b[31mred\x07\u2028\u202ekcab\ud800\x00\x9b\ttab"
    fivetran.faults.append(
        reply(status, json.dumps({"code": "Success", "message": message}))
    )
    result = run()
    output = result.out + result.err
    assert r"a\nb\r\x1b[31mred\x07\u2028\u202ekcab\ud800\x00\x9b\ttab" in output
    assert all(c.isprintable() or c == "\n" for c in output)
    assert len(output.splitlines()) == 3


def test_a_request_id_is_shown_as_plain_text(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.faults.append(reply(400, refusal(), {"X-Request-Id": "\x1b[2J\x07evil"}))
    assert r"\x1b[2J\x07evil" in one_error(run())


@pytest.mark.parametrize("status", [200, 401, 501])
@pytest.mark.parametrize(
    "form",
    [
        '{{"code": "Success", "message": "key {key} secret {secret} token {token}"}}',
        '{{"code": "{secret}", "{token}": ["{key}", {{"{secret}": "{key}"}}]}}',
        "<html>{key} {secret} Authorization: Basic {token}</html>",
        '"{secret}',
    ],
)
def test_secrets_that_a_server_echoes_are_neither_shown_nor_kept(
    run: Runner, fivetran: FakeFivetran, status: int, form: str
) -> None:
    token = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
    body = form.format(key=API_KEY, secret=API_SECRET, token=token)
    fivetran.faults.append(reply(status, body, {"X-Request-Id": f"Basic {token}"}))
    result = run()  # which looks for the secrets everywhere
    assert "***" in result.out + result.err
    assert "***" in result.response_path.read_text()


def test_secrets_are_hidden_however_json_spells_them(
    run: Runner, fivetran: FakeFivetran
) -> None:
    secret = 'quo"te\\and ünicode/'
    escaped = "".join(f"\\u{ord(c):04x}" for c in secret)
    fivetran.credentials = (API_KEY, secret)
    for form in (
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        f'"{escaped}"',
    ):
        fivetran.faults.append(reply(400, f'{{"code": "Echo", "message": {form}}}'))
        result = run(FIVETRAN_API_SECRET=secret)
        assert result.code == 201
        assert result.response == {"code": "Echo", "message": "***"}
        assert secret not in result.out + result.err


def test_a_short_key_does_not_blot_out_what_is_said(
    run: Runner, fivetran: FakeFivetran
) -> None:
    fivetran.credentials = ("key", "s")
    result = run(FIVETRAN_API_KEY="key", FIVETRAN_API_SECRET="s")
    assert result.code == 0
    assert "Success: Sync has been successfully triggered" in result.out


def test_a_secret_that_begins_like_the_key_does_not_uncover_it(
    run: Runner, fivetran: FakeFivetran
) -> None:
    key, secret = "abcdefXYZ123", "abcdef"
    fivetran.credentials = (key, secret)
    fivetran.faults.append(reply(400, refusal("Echo", f"{key} and {secret}")))
    result = run(FIVETRAN_API_KEY=key, FIVETRAN_API_SECRET=secret)
    assert result.response["message"] == "*** and ***"
    assert "XYZ" not in result.err


def test_an_endless_request_id_leaves_room_for_the_message(
    run: Runner, fivetran: FakeFivetran
) -> None:
    answer = refusal("Code", "The message.")
    fivetran.faults.append(reply(400, answer, {"X-Request-Id": "x" * 5_000}))
    assert "Code: The message." in one_error(run())


CUT_REFUSALS = {
    "401 without a body": (
        b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n",
        200,
    ),
    "302 without a body": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 201),
    "404 cut short": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n{", 204),
}


@pytest.mark.parametrize("name", CUT_REFUSALS)
def test_a_refusal_is_final_even_if_its_body_is_cut_short(
    run: Runner, fivetran: FakeFivetran, name: str
) -> None:
    answer, code = CUT_REFUSALS[name]
    fivetran.faults.append(send(answer))
    result = run()
    assert result.code == code
    assert len(fivetran.requests) == 1
    assert result.response["code"] == "InvalidResponse"
