"""Test 23 of security.md, as far as logs and metrics go: a canary never comes out."""

from __future__ import annotations

import io
import logging
import socket
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from mpc.errors import ConfigError, DeadlineError
from parties import telemetry
from parties.addresses import Endpoint
from tests.support.effort import patient
from tests.support.logs import lines, logged
from tests.support.parties import free_ports

CANARY = 7310245990012345678
CANARY_TEXT = str(CANARY)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with logged("info", "party-1") as output:
        yield output


class Secret:
    __secret__ = True

    def __repr__(self) -> str:
        return CANARY_TEXT


class SecretNumber(int):
    __secret__ = True


@dataclass
class Unknown:
    value: int = CANARY


def test_a_line_is_json_with_time_level_and_process(stream: io.StringIO) -> None:
    telemetry.logger(session="ab").info(
        "session opened", runs=3, peers=("a", "b"), path=Path("/x"), shape=[1, 2], ok=True
    )
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "session opened",
        "level": "info",
        "process": "party-1",
        "session": "ab",
        "runs": 3,
        "peers": ["a", "b"],
        "path": "/x",
        "shape": [1, 2],
        "ok": True,
    }


def test_the_level_is_a_threshold_and_libraries_speak_from_warning_on(stream: io.StringIO) -> None:
    telemetry.logger().debug("no")
    logging.getLogger("grpc").info("no")
    logging.getLogger("grpc").warning("peer %s", "gone")
    assert [line["event"] for line in lines(stream)] == ["peer gone"]


@pytest.mark.parametrize(
    "value",
    [
        CANARY_TEXT.encode(),
        bytearray(CANARY_TEXT.encode()),
        memoryview(CANARY_TEXT.encode()),
        np.array([CANARY], dtype=np.uint64),
        np.uint64(CANARY),
        Secret(),
        SecretNumber(CANARY),
        Unknown(),
        [CANARY] * 9,
        {"deep": [{"er": (Secret(), np.array([CANARY]), CANARY_TEXT.encode())}]},
        ValueError(CANARY_TEXT),
        iter([CANARY_TEXT]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_secret_value_is_written(stream: io.StringIO, value: object) -> None:
    telemetry.logger().warning("event", value=value, _value=value)
    telemetry.logger(bound=value).info("event")
    telemetry.logger().info("positional %s", value)
    logging.getLogger("library").warning("event %s", value)
    logging.getLogger("library").warning("event %(value)s", {"value": value})
    assert len(lines(stream)) == 5
    assert CANARY_TEXT not in stream.getvalue()
    assert "[731" not in stream.getvalue()


@pytest.mark.parametrize(
    "key", ["seed", "key", "share", "mask", "Seeds", "output_mask", "key_pem", "my-share", "SECRET"]
)
def test_no_value_under_a_secret_key_is_written(stream: io.StringIO, key: str) -> None:
    telemetry.logger().warning("event", **{key: CANARY, "inner": {key: CANARY_TEXT}})
    [line] = lines(stream)
    assert (line[key], line["inner"][key]) == ("<redacted>", "<redacted>")


def test_harmless_keys_stay(stream: io.StringIO) -> None:
    telemetry.logger().info("event", monkey=1, shared_memory=2, masked_wires=3)
    assert {1, 2, 3} <= {value for value in lines(stream)[0].values() if isinstance(value, int)}


def fail(value: int) -> None:
    try:
        np.int32(value)
    except OverflowError as error:
        raise RuntimeError(f"wire {value}") from error


def test_a_traceback_shows_where_but_not_what(stream: io.StringIO) -> None:
    try:
        fail(CANARY)
    except RuntimeError:
        telemetry.logger().exception("run failed")
        logging.getLogger("library").exception("again")
    for line in lines(stream):
        assert "in fail" in line["exception"]
        assert "RuntimeError: <message withheld>" in line["exception"]
        assert "OverflowError: <message withheld>" in line["exception"]
    assert len(lines(stream)) == 2
    assert CANARY_TEXT not in stream.getvalue()


def test_our_errors_keep_their_message(stream: io.StringIO) -> None:
    error = DeadlineError("party-2 did not answer", remedy="mpc doctor", peer="party-2")
    telemetry.logger().error("aborted", error=error, exc_info=error)
    [line] = lines(stream)
    assert line["error"] == "DeadlineError: party-2 did not answer; fix: mpc doctor"
    assert line["error"] in line["exception"]


def test_uncaught_exceptions_take_the_same_way(stream: io.StringIO) -> None:
    try:
        fail(CANARY)
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    [line] = lines(stream)
    assert (line["level"], line["event"]) == ("critical", "uncaught exception")
    assert CANARY_TEXT not in stream.getvalue()


def test_counters_have_their_own_registry() -> None:
    one, two = telemetry.Counters(), telemetry.Counters()
    one.sessions.labels(state="open").inc()
    one.sent_bytes.inc(4096)
    one.count_abort("deadline")
    one.count_abort("made up by a peer 1")
    one.count_abort("made up by a peer 2")
    text = generate_latest(one.registry).decode()
    assert 'mpc_sessions_total{state="open"} 1.0' in text
    assert "mpc_sent_bytes_total 4096.0" in text
    assert 'mpc_aborts_total{code="deadline"} 1.0' in text
    assert 'mpc_aborts_total{code="internal"} 2.0' in text
    assert "made up" not in text
    assert "mpc_sent_bytes_total 0.0" in generate_latest(two.registry).decode()


def test_the_http_endpoint_and_a_taken_port() -> None:
    taken = Endpoint(f"127.0.0.1:{free_ports(1)[0]}")
    with socket.create_server((taken.host, taken.port)), pytest.raises(ConfigError, match="cannot listen"):
        telemetry.Counters().serve(taken)
    counters = telemetry.Counters()
    counters.rounds.inc(12)
    stop = counters.serve(taken)
    try:
        with urllib.request.urlopen(f"http://{taken}/metrics", timeout=patient(10)) as answer:
            assert b"mpc_rounds_total 12.0" in answer.read()
    finally:
        stop()


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 0.0), (0.3, 0.25), (0.25, 0.25), (0.4999, 0.25), (3.0, 2.0)])
def test_times_of_secret_work_are_told_to_a_power_of_two(seconds: float, told: float) -> None:
    assert telemetry.coarse(seconds) == told
