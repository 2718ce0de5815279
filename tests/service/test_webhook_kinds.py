"""Kinds of webhooks: each is found, told by its code, sends what its receiver wants, and nothing to places inside."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from starlette.testclient import TestClient

from catalogue import discovery as catalogue
from service.outbound import AddressNotAllowed, Guard
from service.settings import Settings
from service.webhook_kinds import discovery
from service.webhook_kinds.contract import Answer, Owed, Post, PostingKind, WebhookKind
from tests.receiver import Receiver
from tests.service.connections import HOSTILE, watched_connections
from tests.service.opened import opened

NOW = datetime(2026, 11, 22, 13, tzinfo=UTC)
UID = "0" * 31 + "1"
ALERT: Mapping[str, Any] = {
    "alert": "a" * 32,
    "model": "loans",
    "version": "v1",
    "state": "open",
    "severity": "critical",
    "sentence": "2 of 3 inputs of loans v1 moved since 2026-11-20: <age>, income",
    "results": [{"feature": "age", "value": 0.5}],
    "links": {"alert": "https://plumbline.test/alerts/aaa"},
}
REQUEST: Mapping[str, Any] = {
    "retraining": "b" * 32,
    "model": "loans",
    "version": "v1",
    "reason": "performance of loans v1 was violated in 2 of its last 3 windows",
    "training_data_url": "https://plumbline.test/v1/retrainings/bbb/training-data?token=x",
    "callback_url": "https://plumbline.test/v1/retrainings/bbb/status?token=y",
    "links": {"retraining": "https://plumbline.test/models/loans/retraining"},
}
every_kind = pytest.mark.parametrize("kind", list(discovery.kinds().values()), ids=list(discovery.kinds()))


def settings(**changes: Any) -> Settings:
    return Settings.model_validate(
        {"data_dir": Path("unused"), "outbound_http": True, "outbound_allow": ("127.0.0.1",), **changes}
    )


def owed(url: str, event: str = "alert.opened", data: Mapping[str, Any] = ALERT, **more: Any) -> Owed:
    document = {"type": event, "timestamp": "2026-11-22T13:00:00Z", "version": 1, "sequence": 1, "data": dict(data)}
    return Owed(uid=UID, event=event, body=json.dumps(document), url=url, now=NOW, **more)


def example(kind: WebhookKind) -> dict[str, Any]:
    """Return the options and credentials of a kind's example."""
    return {name: kind.example.get(name, {}) for name in ("options", "credentials")}


def sent(receiver: Receiver, name: str, call: Owed) -> tuple[dict[str, str], dict[str, Any], Answer]:
    """Deliver a call; return the headers and body that came, and the answer."""
    answer = discovery.kinds()[name].deliver(call, Guard(settings()))
    headers, body = receiver.calls[-1]
    return headers, json.loads(body), answer


# --- every kind -------------------------------------------------------------------------------------------------------


@every_kind
def test_the_example_of_a_kind_is_one(kind: WebhookKind) -> None:
    given = example(kind)
    kind.options.model_validate(given["options"])
    kind.credentials.model_validate(given["credentials"])
    kind.check(Guard(settings(), resolve=lambda _host, _port: ["93.184.216.34"]), kind.example["url"], given["options"])


@every_kind
def test_no_kind_connects_to_a_hostile_address(kind: WebhookKind) -> None:
    # plain http is on for one allowed host, so that the addresses are what is refused
    guard = Guard(settings(outbound_allow=("hooks.test",)))
    path = kind.example["url"].partition("://")[2].partition("/")[2]
    given = example(kind)
    with watched_connections() as connections:
        for url in HOSTILE:
            for hostile in (url.rstrip("/") + f"/{path}", url.replace("http:", "https:").rstrip("/") + f"/{path}"):
                with pytest.raises(AddressNotAllowed):
                    kind.check(guard, hostile, given["options"])
                try:
                    answer = kind.deliver(owed(hostile, **given), guard)
                except ValueError:
                    continue  # botocore refuses what is no address before it signs
                assert not answer.arrived
                assert answer.status is None
    assert connections == []


@pytest.mark.parametrize(
    "form",
    [
        "mailto://{}?to=ann@example.com&from=plumbline@example.com&mode=insecure",
        "mailtos://u:p@{}?to=ann@example.com&from=plumbline@example.com",
        "mailtos://u:p@example.com?to=ann@example.com&from=plumbline@example.com&smtp={}",
        "workflows://{}/643e69f83c8944438d68119179a10a64/KODuebWbDGYFr0z0eu",
        "mmosts://{}/3ccdd113474722377935511fc85d3dd4",
    ],
)
def test_apprise_is_not_let_near_a_hostile_host(form: str) -> None:
    kind, guard = discovery.kinds()["notify"], Guard(settings(outbound_allow=("hooks.test",)))
    with watched_connections() as connections:
        for url in HOSTILE:
            answer = kind.deliver(owed(form.format(url.removeprefix("http://").split("/")[0])), guard)
            assert not answer.arrived
            assert answer.error.startswith(("address_not_allowed", "the host has no address"))
    assert connections == []


def test_the_catalogue_is_read_off_the_code(tmp_path: Path) -> None:
    with opened(tmp_path) as client:
        items = client.get("/v1/catalog/webhooks").json()["items"]
        assert [item["name"] for item in items] == list(discovery.kinds())
        for item in items:
            assert item["description"]
            assert item["options"]["type"] == item["credentials"]["type"] == "object"
            assert item["source"]
        events = [item["name"] for item in client.get("/v1/catalog/events").json()["items"]]
        assert {"alert.opened", "retraining.requested"} <= set(events)


class Pager(PostingKind):
    """A kind that another package brings."""

    name: ClassVar[str] = "acme_pager"
    contract: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {"url": "https://pager.example.com/", "events": ["alert.opened"]}

    def request(self, owed: Owed) -> Post:
        return Post(url=owed.url, body=b"{}")


def test_a_kind_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("acme", f"{__name__}:Pager", discovery.WEBHOOKS)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [point] if group == discovery.WEBHOOKS else [])
    discovery.forget()
    try:
        assert type(discovery.kinds()["acme_pager"]) is Pager
        assert discovery.by("acme_pager") == __name__
        assert discovery.by("generic") == ""
    finally:
        monkeypatch.undo()
        discovery.forget()


# --- each of them -----------------------------------------------------------------------------------------------------


def test_a_dispatch_carries_the_event_as_one_member_beside_its_id(receiver: Receiver) -> None:
    call = owed(receiver.url + "/dispatches", credentials={"token": "t"})
    headers, body, answer = sent(receiver, "github", call)
    assert answer.arrived
    assert headers["authorization"] == "Bearer t"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert body["event_type"] == "alert.opened"
    assert len(body["client_payload"]) <= 10
    assert body["client_payload"]["id"] == UID
    assert body["client_payload"]["data"]["model"] == "loans"
    _, body, _ = sent(receiver, "github", owed(receiver.url, credentials={"token": "t"}, options={"event_type": "go"}))
    assert body["event_type"] == "go"


def test_a_dag_run_has_a_fixed_id_and_one_that_exists_is_told_already(receiver: Receiver) -> None:
    call = owed(receiver.url, "retraining.requested", REQUEST, credentials={"username": "u", "password": "p"})
    headers, body, answer = sent(receiver, "airflow", call)
    assert answer.arrived
    assert headers["authorization"] == "Basic " + b64encode(b"u:p").decode()
    assert set(body) == {"dag_run_id", "logical_date", "conf"}
    assert body["dag_run_id"] == f"plumbline_{UID}"
    assert body["logical_date"] is None
    assert body["conf"]["data"]["callback_url"] == REQUEST["callback_url"]
    receiver.status = 409
    assert sent(receiver, "airflow", call)[2].arrived
    receiver.status = 422
    assert not sent(receiver, "airflow", call)[2].arrived


def test_slack_is_told_in_a_sentence_whose_names_cannot_link(receiver: Receiver) -> None:
    _, body, answer = sent(receiver, "slack", owed(receiver.url))
    assert answer.arrived
    assert "&lt;age&gt;, income" in body["text"]
    assert body["text"].count("<") == 1
    assert "<https://plumbline.test/alerts/aaa|" in body["text"]


@pytest.mark.parametrize(
    ("event", "state", "action"),
    [
        ("alert.opened", "open", "trigger"),
        ("alert.updated", "open", "trigger"),
        ("alert.acknowledged", "acknowledged", "acknowledge"),
        ("alert.resolved", "resolved", "resolve"),
        ("monitor.blind", "open", "trigger"),
    ],
)
def test_an_alert_is_one_incident_in_pagerduty(receiver: Receiver, event: str, state: str, action: str) -> None:
    call = owed(receiver.url, event, {**ALERT, "state": state}, credentials={"routing_key": "k"})
    _, body, answer = sent(receiver, "pagerduty", call)
    assert answer.arrived
    assert (body["event_action"], body["dedup_key"], body["routing_key"]) == (action, "a" * 32, "k")
    assert body["payload"]["severity"] == "critical"
    assert body["payload"]["source"] == "loans"


SAGEMAKER: Mapping[str, Any] = {
    "options": {"pipeline": "retrain", "region": "eu-west-1", "parameters": {"Data": "training_data_url", "No": "no"}},
    "credentials": {"access_key_id": "testing", "secret_access_key": "testing"},
}


@contextmanager
def simulated_sagemaker() -> Iterator[tuple[str, Any]]:
    """Run moto's SageMaker behind an address of this host; yield the address and a client that looks inside."""
    import boto3
    from botocore.exceptions import ClientError
    from moto import mock_aws

    with mock_aws():
        inside = boto3.client("sagemaker", region_name="eu-west-1")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.headers["x-amz-target"] == "SageMaker.StartPipelineExecution"
                try:
                    status, answer = 200, inside.start_pipeline_execution(**asked)
                except ClientError as error:
                    status, answer = (
                        400,
                        {"__type": error.response["Error"]["Code"], "message": error.response["Error"]["Message"]},
                    )
                body = json.dumps({name: value for name, value in answer.items() if name != "ResponseMetadata"})
                self.send_response(status)
                self.send_header("content-type", "application/x-amz-json-1.1")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", inside
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_a_pipeline_is_started_with_the_call_s_id_as_its_token() -> None:
    kind, guard = discovery.kinds()["sagemaker"], Guard(settings())
    with simulated_sagemaker() as (url, inside):
        inside.create_pipeline(
            PipelineName="retrain",
            ClientRequestToken="c" * 32,
            RoleArn="arn:aws:iam::123456789012:role/retrain",
            PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": []}),
        )
        answer = kind.deliver(owed(url, "retraining.requested", REQUEST, **SAGEMAKER), guard)
        assert answer.arrived
        (execution,) = inside.list_pipeline_executions(PipelineName="retrain")["PipelineExecutionSummaries"]
        arn = execution["PipelineExecutionArn"]
        assert answer.text == arn
        parameters = inside.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
        assert parameters == [{"Name": "Data", "Value": REQUEST["training_data_url"]}]
        absent = {**SAGEMAKER, "options": {"pipeline": "absent", "region": "eu-west-1"}}
        answer = kind.deliver(owed(url, "retraining.requested", REQUEST, **absent), guard)
        assert answer.status == 400
        assert "absent" in answer.text


def test_what_boto3_signs_goes_through_the_guard(receiver: Receiver) -> None:
    # the receiver is no SageMaker: what matters is that the signed request came to it, over the guard's connection
    address = receiver.url.removesuffix("/hook")
    call = owed(address, "retraining.requested", REQUEST, **SAGEMAKER)
    discovery.kinds()["sagemaker"].deliver(call, Guard(settings()))
    headers, body = receiver.calls[-1]
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=testing/")
    assert headers["x-amz-target"] == "SageMaker.StartPipelineExecution"
    assert json.loads(body)["ClientRequestToken"] == UID
    with watched_connections() as connections:
        answer = discovery.kinds()["sagemaker"].deliver(call, Guard(settings(outbound_allow=())))
    assert "address_not_allowed" in answer.error
    assert connections == []


@dataclass
class Mail:
    """A mail server that takes one letter after another."""

    port: int = 0
    letters: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["Mail"]:
        import socketserver

        mail = cls()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                def say(text: str) -> None:
                    self.wfile.write(f"{text}\r\n".encode())

                say("220 test")
                while line := self.rfile.readline().decode().strip():
                    verb = line.upper()
                    if verb.startswith("DATA"):
                        say("354 go on")
                        letter = b""
                        while not letter.endswith(b"\r\n.\r\n"):
                            letter += self.rfile.readline()
                        mail.letters.append(letter.decode())
                        say("250 taken")
                    elif verb.startswith("QUIT"):
                        say("221 bye")
                        return
                    else:
                        say("250 ok")

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        mail.port = int(server.server_address[1])
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield mail
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_a_letter_is_sent_to_a_mail_server_that_is_allowed_and_to_no_other() -> None:
    kind = discovery.kinds()["notify"]
    with Mail.listening() as mail:
        url = f"mailto://127.0.0.1:{mail.port}?to=ann@example.com&from=plumbline@example.com&mode=insecure"
        assert kind.deliver(owed(url), Guard(settings())).arrived
        (letter,) = mail.letters
        assert "ann@example.com" in letter
        assert "alert.opened" in letter
        with watched_connections() as connections:
            answer = kind.deliver(owed(url), Guard(settings(outbound_allow=())))
        assert "address_not_allowed" in answer.error
        assert connections == []


def test_apprise_connects_to_the_address_that_was_checked_whatever_a_resolver_says_later() -> None:
    kind = discovery.kinds()["notify"]
    with Mail.listening() as mail:
        url = f"mailto://mail.test:{mail.port}?to=ann@example.com&from=plumbline@example.com&mode=insecure"
        # a name that no resolver of this machine has: the guard's own answer is what is connected to
        assert kind.deliver(owed(url), Guard(settings(outbound_allow=("mail.test",)), lambda *_: ["127.0.0.1"])).arrived
        assert len(mail.letters) == 1
        for looks in (1, 2):  # outside so many times; the second or third look is the one that is connected to
            asked: list[str] = []

            def rebound(host: str, port: int, looks: int = looks, asked: list[str] = asked) -> list[str]:
                asked.append(f"{host}:{port}")
                return ["127.0.0.1" if len(asked) > looks else "93.184.216.34"]

            with watched_connections() as connections:
                answer = kind.deliver(owed(url), Guard(settings(outbound_allow=()), rebound))
            assert answer.error.startswith("address_not_allowed: mail.test is at 127.0.0.1")
            assert (len(asked), connections) == (looks + 1, [])
        assert len(mail.letters) == 1


@pytest.mark.parametrize(
    "schema", ["json", "xml", "form", "apprise", "jsons", "dbus", "syslog", "file", "smtp", "ntfy"]
)
def test_schemas_of_apprise_that_are_not_listed_are_refused(schema: str) -> None:
    with pytest.raises(AddressNotAllowed, match="use one of"):
        discovery.kinds()["notify"].check(Guard(settings()), f"{schema}://127.0.0.1/", {})


def test_apprise_follows_no_redirect() -> None:
    moved: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            moved.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:9/inside")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    from service.webhook_kinds.notify import _plugin

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        # mmost is not listed: it stands for the plug-ins' way of sending, over plain http
        plugin = _plugin(f"mmost://127.0.0.1:{server.server_address[1]}/3ccdd113474722377935511fc85d3dd4?redirect=yes")
        with watched_connections() as connections:
            assert not plugin.notify(body="b", title="t")
        assert {address[1] for address in connections} == {server.server_address[1]}
        assert len(moved) == 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("kinds")
    with opened(folder, outbound_allow=("127.0.0.1",), outbound_http=True) as found:
        yield found


def stored(client: TestClient) -> bytes:
    """Return everything that the database's files hold."""
    folder: Path = client.app.state.assembly.settings.data_dir  # type: ignore[attr-defined]
    return b"".join(path.read_bytes() for path in folder.glob("plumbline.db*"))


def test_credentials_are_written_and_never_read(client: TestClient, receiver: Receiver) -> None:
    body = {"name": "hub", "kind": "github", "url": f"{receiver.url}/dispatches", "events": ["*"]}
    refused = client.post("/v1/webhooks", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/credentials/token"
    made = client.post("/v1/webhooks", json=body | {"credentials": {"token": "github_pat_planted"}})
    assert made.status_code == 201, made.text
    assert made.json()["credentials"] is True
    assert "secret" not in made.json()
    for answer in (made, client.get("/v1/webhooks/hub"), client.get("/v1/webhooks"), client.get("/v1/audit")):
        assert "planted" not in answer.text
    assert b"planted" not in stored(client)
    assert client.post("/v1/webhooks/hub/test").json()["state"] == "delivered"
    assert receiver.calls[-1][0]["authorization"] == "Bearer github_pat_planted"
    assert client.patch("/v1/webhooks/hub", json={"credentials": {"token": "planted_next"}}).status_code == 200
    client.post("/v1/webhooks/hub/test")
    assert receiver.calls[-1][0]["authorization"] == "Bearer planted_next"
    assert client.post("/v1/webhooks/hub/rotate").status_code == 409


def test_an_address_that_lets_in_is_kept_like_a_credential(client: TestClient, receiver: Receiver) -> None:
    url = f"{receiver.url}/T00/planted-secret"
    made = client.post("/v1/webhooks", json={"name": "chat", "kind": "slack", "url": url, "events": ["*"]})
    assert made.status_code == 201, made.text
    assert "planted-secret" not in made.text
    assert made.json()["url"].endswith("/…")
    assert b"planted-secret" not in stored(client)
    assert client.post("/v1/webhooks/chat/test").json()["state"] == "delivered"
    assert client.patch("/v1/webhooks/chat", json={"events": ["alert.opened"]}).json()["url"] == made.json()["url"]
    assert client.post("/v1/webhooks/chat/test").json()["state"] == "delivered"


def test_what_a_kind_does_not_know_is_refused_with_its_place(client: TestClient) -> None:
    body = {"name": "x", "url": "http://127.0.0.1:9/", "events": ["*"]}
    for more, pointer in (
        ({"kind": "pigeon"}, "/kind"),
        ({"options": {"colour": "red"}}, "/options/colour"),
        ({"credentials": {"token": "t"}}, "/credentials/token"),
        ({"kind": "sagemaker", "options": {"pipeline": "p", "region": "here"}}, "/options/region"),
        ({"kind": "github", "credentials": {"token": "t"}}, "/url"),
    ):
        answer = client.post("/v1/webhooks", json=body | more)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
