"""Logs, metrics and traces of a real server: they tell what happened, and nothing of anybody."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import RequestInfo
from grpc_status import rpc_status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc, register_pb2, register_pb2_grpc
from devices.terminal import connect
from identity import observability
from identity.app import open_installation
from identity.config import ObservabilityConfig
from identity.errors import ConfigError
from identity.observability import logs, tracing
from identity.observability.exporter import Exporter
from identity.observability.metrics import REFUSAL_REASONS, REGISTRY
from identity.server_process import ServerProcess, loopback_toml, serving
from identity.setup import create_installation
from tests.identity.kit import person, records
from tests.identity.service_kit import (
    PURPOSE,
    Service,
    admit_terminal,
    application,
    refusal,
    running,
    working_at,
)

Code = grpc.StatusCode
HANDSHAKES = 'anju_refusals_total{reason="tls_handshake"} 2.0'
SPOILED = "样板路7号"
DASHBOARD = Path(observability.__file__).parent / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("observed") / "anju") as started:
        yield started


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# -- a whole run in a process of its own ----


class Run:
    """What one server process left behind after some ordinary and some refused calls."""

    def __init__(self, log: str, metrics: str) -> None:
        self.log, self.metrics = log, metrics
        self.entries: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["event"] == event]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("run") / "anju"
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as installation:
        home = admit_terminal(installation, "east-gate", "hall-1")
    with (
        serving(directory) as server,
        working_at(home) as terminal,
        connect(directory / "operators" / "operator-1") as operator,
    ):
        enrol = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel).Enrol
        done = enrol(application(0), timeout=60).application
        assert done.state == enrolment_pb2.APPLICATION_STATE_ENROLLED
        enrol(application(0, name=1, impression=1), timeout=60)  # a case
        assert refusal(lambda: enrol(spoiled(), timeout=60)).code is Code.INVALID_ARGUMENT
        register = register_pb2_grpc.RegisterServiceStub(operator.channel)
        query = register_pb2.GetRegistrantRequest(registrant_id=done.registrant_id, purpose=PURPOSE)
        register.GetRegistrant(query, timeout=60)
        stranger = register_pb2_grpc.RegisterServiceStub(terminal.channel)
        assert refusal(lambda: stranger.GetRegistrant(query)).code is Code.PERMISSION_DENIED
        turned_away(server, ssl.create_default_context())
        old = ssl.create_default_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.load_cert_chain(home / "certificate.pem", home / "key.pem")
        turned_away(server, old)
        address = server.serving["metrics_address"]
        deadline = time.monotonic() + 10
        while HANDSHAKES not in (metrics := scrape(address)) and time.monotonic() < deadline:
            time.sleep(0.05)  # gRPC's log is read by a thread
    return Run((directory / "server.log").read_text(encoding="utf-8"), metrics)


def spoiled() -> enrolment_pb2.EnrolRequest:
    """Particulars that are wrong, so that the refusal's message quotes some."""
    request = application(2)
    request.residence.division_code = SPOILED
    return request


def turned_away(server: ServerProcess, context: ssl.SSLContext) -> None:
    host, _, port = server.serving["address"].rpartition(":")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        contextlib.suppress(OSError),  # an alert or the end, as the timing has it
        context.wrap_socket(plain) as tls,
    ):
        assert not tls.recv(100)


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def test_the_log_of_a_run_tells_of_each_call_and_nothing_of_anybody(run: Run) -> None:
    calls = [(entry["method"], entry["status"]) for entry in run.events("call")]
    assert ("EnrolmentService.Enrol", "OK") in calls
    assert ("EnrolmentService.Enrol", "INVALID_ARGUMENT") in calls
    assert ("RegisterService.GetRegistrant", "PERMISSION_DENIED") in calls
    for entry in run.events("call"):
        assert entry["caller"] in ("terminal:hall-1", "operator:operator-1")
        assert re.fullmatch("[0-9a-f]{16}", entry["request_id"])
        assert 0 < entry["ms"] < 60_000
        assert entry.keys() <= {
            "event", "level", "timestamp", "method", "status", "reason", "caller", "ms",
            "request_id",
        }  # fmt: skip
    for text in personal():
        assert text not in run.log, text
        assert text not in run.metrics, text
    assert run.events("draining")
    assert run.events("stopped")


def personal() -> list[str]:
    found = [SPOILED]
    for index in (0, 1, 2):
        who = person(index)
        found += [who.full_name, who.document_number, who.residence_address]
        found += [str(record[30:60])[2:-1] for record in records(index)]
        found += [record[30:40].hex() for record in records(index)]
    return found


def test_a_failed_handshake_is_counted_and_logged_by_its_reason(run: Run) -> None:
    assert [entry["reason"] for entry in run.events("tls handshake failed")] == [
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "NO_SHARED_CIPHER",  # TLS 1.2
    ]
    assert HANDSHAKES in run.metrics


def test_the_metrics_agree_with_what_was_done(run: Run) -> None:
    lines = run.metrics.splitlines()
    for line in (
        'anju_rpc_calls_total{method="EnrolmentService.Enrol",status="OK"} 2.0',
        'anju_rpc_calls_total{method="EnrolmentService.Enrol",status="INVALID_ARGUMENT"} 1.0',
        'anju_rpc_duration_seconds_count{method="EnrolmentService.Enrol"} 3.0',
        'anju_enrolments_total{outcome="enrolled"} 1.0',
        'anju_enrolments_total{outcome="same_fingers_other_particulars"} 1.0',
        'anju_refusals_total{reason="authorisation"} 1.0',
        'anju_stage_duration_seconds_count{stage="search"} 2.0',
        "anju_rpc_in_flight 0.0",
        "anju_index_references 2.0",
        "anju_index_lag_changes 0.0",
        "anju_register_readable 1.0",
        "anju_applications_waiting 0.0",
        'anju_terminals{state="active"} 1.0',
        'anju_connections{port="main"} 2.0',
    ):
        assert line in lines, line
    for family in text_string_to_metric_families(run.metrics):
        for sample in family.samples:
            assert sample.labels.keys() <= {
                "method", "status", "reason", "stage", "outcome", "le", "chore", "certificate",
                "port", "state",
            }  # fmt: skip


def test_the_dashboard_asks_only_for_what_the_exporter_has(run: Run) -> None:
    offered = {
        sample.name
        for family in text_string_to_metric_families(run.metrics)
        for sample in family.samples
    }
    # Shown once their first event is there; named here so that a misspelling is not excused.
    later = {"anju_housekeeping_runs_total", "anju_housekeeping_duration_seconds_sum"}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(?:anju|process)_\w+", query)}
    assert len(queries) >= 15
    assert asked - offered <= later
    declared = {family.name for family in REGISTRY.collect()}
    assert {"anju_housekeeping_runs", "anju_housekeeping_duration_seconds"} <= declared
    # And nothing that is offered has been forgotten.
    told = {re.sub("_(bucket|sum|count|created|total)$", "", name) for name in asked}
    ours = {re.sub("_(bucket|sum|count|created|total)$", "", name) for name in offered}
    assert {name for name in ours if name.startswith("anju_")} <= told


# -- the parts ----


def test_a_refusal_carries_the_id_that_its_line_in_the_log_has(service: Service) -> None:
    with (
        service.terminal("east-gate", "hall-3") as terminal,
        structlog.testing.capture_logs(
            processors=[structlog.contextvars.merge_contextvars]
        ) as captured,
    ):
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetApplication(enrolment_pb2.GetApplicationRequest(application_id="A1"))
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    info = RequestInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    (entry,) = [one for one in captured if one.get("status") == "NOT_FOUND"]
    assert entry["request_id"] == info.request_id


def test_spans_cover_a_call_and_its_steps_and_name_nobody(service: Service) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing.start(provider)
    try:
        with service.terminal("east-gate", "hall-4") as terminal:
            stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
            stub.Enrol(application(5), timeout=60)
            refusal(lambda: stub.Enrol(spoiled(), timeout=60))
    finally:
        tracing.stop()
    finished = spans.get_finished_spans()
    calls = [span for span in finished if span.name == "EnrolmentService.Enrol"]
    assert [dict(span.attributes or {})["rpc.grpc.status_code"] for span in calls] == [
        "OK",
        "INVALID_ARGUMENT",
    ]
    steps = {span.name for span in finished if span.parent and span.parent == calls[0].context}
    assert steps == {"accept", "search", "decision_wait", "decide", "issue"}
    told = "".join(span.to_json() for span in finished)
    who = person(5)
    for text in (who.full_name, who.document_number, SPOILED, "Traceback"):
        assert text not in told
        assert json.dumps(text) not in told


def test_without_a_tracer_a_span_is_nothing() -> None:
    with tracing.span("EnrolmentService.Enrol") as span:
        assert span is None


def test_tracing_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"anju\[tracing\]"):
        tracing.otlp_provider()


def test_what_libraries_log_is_kept_without_its_text() -> None:
    before = structlog.get_config(), logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    try:
        logs.configure("info", "json", stream)
        try:
            raise ValueError("张示例")
        except ValueError:
            logging.getLogger("grpc._server").exception("calling failed: %s", "张示例")
        logging.getLogger("grpc").info("not worth a line")
        logs.log.debug("neither is this")
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers[:] = before[1]
        logging.getLogger().setLevel(before[2])
    (entry,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (entry["level"], entry["logger"], entry["error"]) == (
        "error",
        "grpc._server",
        "ValueError",
    )
    assert entry["place"].startswith("test_observing:")
    assert "张示例" not in stream.getvalue()


def test_console_lines_are_no_json() -> None:
    before = structlog.get_config(), logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    try:
        logs.configure("warning", "console", stream)
        structlog.get_logger("x").info("unheard")
        structlog.get_logger("x").warning("heard", method="M")
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers[:] = before[1]
        logging.getLogger().setLevel(before[2])
    assert "heard" in stream.getvalue()
    assert "unheard" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_every_reason_is_a_series_before_its_first_refusal() -> None:
    names = {s.labels["reason"] for f in REGISTRY.collect() for s in f.samples
             if s.name == "anju_refusals_total"}  # fmt: skip
    assert set(REFUSAL_REASONS) <= names


def test_a_native_line_is_logged_without_its_text() -> None:
    line = "E1124 22:35:49.07 21240 ssl_utils.cc:77] peer CN=张示例 is odd\n"
    with structlog.testing.capture_logs() as captured:
        logs.take_native_line(line)
        logs.take_native_line("\n")
    assert captured == [
        {"event": "native message", "log_level": "warning", "place": "ssl_utils.cc:77"}
    ]


def test_the_native_log_takes_file_descriptor_2_and_gives_it_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    failed = value("anju_refusals_total", reason="tls_handshake")
    with structlog.testing.capture_logs() as captured:
        native = logs.NativeLog()
        native.stream.write("ours\n")
        os.write(2, b"I1 a.cc:1] Handshake failed with error SSL_ERROR_SSL: error:1: SSL routines:"
                b"OPENSSL_internal:UNSUPPORTED_PROTOCOL: Invalid\n")  # fmt: skip
        native.close()
    assert [entry["reason"] for entry in captured] == ["UNSUPPORTED_PROTOCOL"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ours\nafter\n"
    assert value("anju_refusals_total", reason="tls_handshake") == failed + 1


def test_metrics_on_a_taken_port_stop_the_start_with_a_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        class Empty:
            def collect(self) -> list[Any]:
                return []

        with pytest.raises(ConfigError, match=r"metrics_address"):
            Exporter(f"127.0.0.1:{port}", Empty())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"log_level": "loud"}, "log_level"),
        ({"log_format": "xml"}, "log_format"),
        ({"metrics_address": "7445"}, "metrics_address"),
        ({"metrics_address": "localhost:"}, "metrics_address"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ObservabilityConfig(**settings)
