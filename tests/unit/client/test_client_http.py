"""The Python client against a small HTTP server that answers as the services do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from everloop.addresses import Addresses, find_addresses
from everloop.client import Client
from everloop.errors import EverloopError, UsageError
from everloop.inference import request_of
from unit.client.answering import answering

ANSWERS = {
    ("PUT", "/v1/pipelines/orders"): (201, {"pipeline": "orders", "version": 1, "outcome": "created"}),
    ("PUT", "/v1/pipelines/broken"): (
        422,
        {
            "title": "Broken pipeline file",
            "detail": "One problem",
            "problems": [
                {
                    "file": "broken.yaml",
                    "line": 3,
                    "field": "label",
                    "rule": "required",
                    "message": "is missing",
                    "mend": "add it",
                }
            ],
        },
    ),
    ("POST", "/v1/pipelines/orders/observations"): (
        202,
        {
            "accepted": 1,
            "refused": 1,
            "results": [{"status": "accepted"}, {"status": "refused", "reason": "type"}],
        },
    ),
    ("POST", "/v1/pipelines/orders/labels"): (
        422,
        {"accepted": 0, "refused": 1, "results": [{"status": "refused", "reason": "required"}]},
    ),
    ("POST", "/v2/models/orders/infer"): (
        200,
        {
            "id": "a1",
            "model_version": "3",
            "outputs": [{"name": "probability", "data": [0.25]}],
            "parameters": {},
        },
    ),
    ("POST", "/v1/pipelines/orders/online"): (
        200,
        {
            "pipeline": "orders",
            "pipeline_version": 2,
            "state_age_seconds": 0.25,
            "features": {"orders_1h": 3.0},
        },
    ),
    ("GET", "/v1/runs?pipeline=orders"): (200, [{"run_id": "r"}]),
    ("GET", "/health/ready"): (
        503,
        {
            "status": "not-ready",
            "components": [{"name": "worker", "ready": False, "reason": "no assignment"}],
        },
    ),
}


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        status, found = ANSWERS.get((self.command, self.path), (404, {"detail": "nothing there"}))
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(server):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    places = dict.fromkeys(("ingest", "feature", "trainer", "registry", "serving", "monitor"), url)
    with Client(Addresses(**places), token="secret") as client:
        yield client


def test_apply_puts_the_file_under_its_own_name(client, server):
    """The name in the file decides, not the file's name."""
    assert client.apply("pipeline: orders\n")["version"] == 1
    assert server.seen[0][3] == b"pipeline: orders\n"


def test_the_token_travels_with_every_request(client, server):
    """A platform with tokens would refuse everything else."""
    client.runs("orders")
    assert server.seen[0][2]["Authorization"] == "Bearer secret"


def test_a_refused_file_shows_every_problem(client):
    """What the registry found must reach the person who wrote the file."""
    with pytest.raises(
        EverloopError, match=r"(?s)registry refuses \(422\).*broken\.yaml:3 label: is missing \[required\]"
    ):
        client.apply("pipeline: broken\n")


def test_online_asks_serving_for_a_key_and_says_how_old_the_state_is(client, server):
    """A value without its age reads as fresh whatever happened."""
    found = client.online("orders", {"shop": "x"})
    assert (found.values, found.pipeline_version, found.state_age_seconds) == ({"orders_1h": 3.0}, 2, 0.25)
    assert json.loads(server.seen[0][3]) == {"shop": "x"}


def test_refused_rows_keep_their_place(client):
    """Row 2 of the file, not row 2 of some request."""
    result = client.publish("orders", "observations", [{"id": "1"}, {"id": "2"}])
    assert result.accepted == 1
    assert [(one["row"], one["reason"]) for one in result.refused] == [(1, "type")]


def test_all_refused_is_a_result_and_not_a_failure(client):
    """The reasons matter more than the status code."""
    assert [one["reason"] for one in client.publish("orders", "labels", [{"id": "1"}]).refused] == [
        "required"
    ]


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_broker_did_not_take_is_never_counted_as_accepted(status):
    """The rows were well formed, but nobody has them: "accepted" would lose them."""
    body = {"detail": "Kafka has refused the records", "accepted": 2, "refused": 0, "results": []}
    with answering({"POST /v1/pipelines/p/labels": (status, body)}) as server:
        client = Client(Addresses(ingest=server.url))
        with client, pytest.raises(EverloopError, match="Kafka has refused the records"):
            client.publish("p", "labels", [{"id": "1"}, {"id": "2"}])


def test_nan_is_refused_before_it_is_sent(client, server):
    """NaN is no JSON: the services would refuse the whole request."""
    with pytest.raises(UsageError, match="row 0"):
        client.publish("orders", "observations", [{"price": float("nan")}])
    assert server.seen == []


@pytest.mark.parametrize("name", ["x/../orders", "x?y#z", "a b", "\x01", "\ud800"])
def test_a_name_stays_one_part_of_the_path(client, server, name):
    """`everloop rollback 'x/../orders'` must not roll another pipeline back, nor end in a defect."""
    with pytest.raises(EverloopError):
        client.roll_back(name, "why")
    path = server.seen[0][1]
    assert path.startswith("/v1/pipelines/")
    assert path.endswith("/rollback")
    assert path.count("/") == 4


def test_a_source_may_have_any_letters(client, server):
    """A header is ASCII; the source `Zürich` is sent as CloudEvents has it."""
    client.publish("orders", "observations", [{"id": "1"}], source="Zürich")
    assert server.seen[0][2]["ce-source"] == "Z%C3%BCrich"


def test_an_input_that_json_cannot_write_is_wrong_usage(client, server):
    """NaN in `predict` is the caller's mistake, not a defect of ours."""
    with pytest.raises(UsageError, match="cannot be written"):
        client.predict("orders", {"price": float("nan")})
    assert server.seen == []


@pytest.mark.parametrize("name", ["yes", "on", "no"])
def test_a_pipeline_may_be_named_as_yaml_once_wrote_true(client, server, name):
    """`everloop check` takes such a file; `apply` must read it in the same way."""
    with pytest.raises(EverloopError, match="404"):
        client.apply(f"pipeline: {name}\n")
    assert server.seen[0][1] == f"/v1/pipelines/{name}"


def test_predict_sends_tensors_and_reads_the_answer(client, server):
    """The protocol is for machines; people give fields and get a number."""
    found = client.predict(
        "orders", {"shop": "a", "price": 2.5, "gift": True, "note": None}, prediction_id="a1"
    )
    assert (found.output, found.model_version, found.id) == (0.25, "3", "a1")
    sent = json.loads(server.seen[0][3])
    assert {one["name"]: one["datatype"] for one in sent["inputs"]} == {
        "shop": "BYTES",
        "price": "FP64",
        "gift": "BOOL",
    }


def test_a_nested_field_is_refused_by_name():
    """A list where a number belongs must be found by its field."""
    with pytest.raises(UsageError, match="prices is a list"):
        request_of({"prices": [1]}, None)


def test_a_service_says_what_it_waits_for(client):
    """ "503" is no reason."""
    assert client.why_not_ready("ingest") == "worker: no assignment"


def test_a_file_without_a_name_is_refused(client):
    """There would be no address to put it to."""
    with pytest.raises(EverloopError, match="has no `pipeline: <name>`"):
        client.apply("team: x\n")


def test_a_variable_wins_over_the_default(monkeypatch):
    """A client on another machine is told where the services are by its environment."""
    monkeypatch.setenv("EVERLOOP_REGISTRY_URL", "http://registry.internal:80/")
    assert find_addresses().registry == "http://registry.internal:80"
    assert find_addresses().ingest == "http://127.0.0.1:8001"
