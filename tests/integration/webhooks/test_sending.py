"""Requests to real receivers on loopback; only the resolver is ours, as a hostile name's owner would have it."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trustme

from app.webhooks.sending import MAX_ANSWER_BYTES, Answer, Sender
from tests.fixtures.scripted_service import Reply, ScriptedService

PATIENCE = 60.0
NAME = "receiver.example"


class Resolver:
    """Answers as it is told; the last answer is repeated."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def receiver() -> Iterator[ScriptedService]:
    with ScriptedService().serving() as service:
        yield service


def post(sender: Sender, url: str, body: bytes = b"{}") -> Answer:
    return asyncio.run(sender.post(url, {"webhook-id": "msg_1"}, body))


def local(timeout_seconds: float = PATIENCE) -> Sender:
    return Sender(allow_private=True, timeout_seconds=timeout_seconds)


def test_a_body_arrives_as_it_is(receiver: ScriptedService) -> None:
    receiver.on("POST", "/hook", Reply(b"thanks", 201))
    assert post(local(), f"{receiver.url}/hook?x=1", b'{"a":1}') == Answer("delivered", 201, body="thanks")
    [seen] = receiver.seen
    assert (seen.body, seen.query, seen.headers["webhook-id"]) == (b'{"a":1}', {"x": ["1"]}, "msg_1")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply(status=204), Answer("delivered", 204, body="")),
        (Reply(b"no", 500), Answer("refused", 500, "answered with status 500", "no")),
        (Reply(b"", 503, {"Retry-After": "120"}), Answer("refused", 503, "answered with status 503", "", 120)),
        (Reply(b"", 503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
         Answer("refused", 503, "answered with status 503", "")),
        (Reply(b"\xff", 400), Answer("refused", 400, "answered with status 400", "\ufffd")),
    ],
)
def test_the_status_decides(receiver: ScriptedService, reply: Reply, answer: Answer) -> None:
    receiver.on("POST", "/", reply)
    assert post(local(), receiver.url) == answer


def test_a_redirect_is_not_followed(receiver: ScriptedService) -> None:
    receiver.on("POST", "/", Reply(status=307, headers={"Location": f"{receiver.url}/elsewhere"}))
    assert post(local(), receiver.url).outcome == "redirected"
    assert [seen.path for seen in receiver.seen] == ["/"]


def test_a_long_answer_is_cut(receiver: ScriptedService) -> None:
    receiver.on("POST", "/", Reply(b"x" * 10_000_000))
    answer = post(local(), receiver.url)
    assert (answer.outcome, answer.body) == ("delivered", "x" * MAX_ANSWER_BYTES)


def test_an_answer_that_breaks_off_counts_by_its_status(receiver: ScriptedService) -> None:
    receiver.on("POST", "/", Reply(b"0123456789", cut_after=3))
    assert post(local(), receiver.url) == Answer("delivered", 200, body="012")


def test_a_receiver_that_is_silent_is_left(receiver: ScriptedService) -> None:
    over = threading.Event()

    def wait(_seen: object) -> Reply:
        over.wait(PATIENCE)
        return Reply()

    receiver.on("POST", "/", wait)
    answer = post(local(timeout_seconds=0.3), receiver.url)
    over.set()
    assert answer == Answer("timed_out", detail="no answer within 0.3 s")


def test_a_name_that_takes_too_long_to_resolve_is_left() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    sender = Sender(allow_private=True, resolve=resolve, timeout_seconds=0.2)
    assert post(sender, f"https://{NAME}/").outcome == "timed_out"


def test_nobody_at_the_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = post(local(), f"http://127.0.0.1:{port}/")
    assert answer.outcome == "unreachable"
    assert answer.detail


def test_a_name_that_is_none_is_told() -> None:
    answer = post(local(), "https://no-such-name.invalid/")
    assert (answer.outcome, bool(answer.detail)) == ("unreachable", True)


def test_what_is_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        answer = post(local(), f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert answer.outcome == "unreachable"


# Server-side request forgery


def port_of(receiver: ScriptedService) -> str:
    return receiver.url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (["127.0.0.1"], "127.0.0.1, which is loopback"),
        (["::1"], "::1, which is loopback"),
        (["::ffff:127.0.0.1"], "which is loopback"),
        (["10.0.0.1"], "10.0.0.1, which is private"),
        (["169.254.169.254"], "which is link-local"),
        (["1.1.1.1", "127.0.0.1"], "127.0.0.1, which is loopback"),
        (["127.0.0.1", "1.1.1.1"], "127.0.0.1, which is loopback"),
    ],
)
def test_a_name_that_leads_inside_is_refused_before_anything_connects(
    receiver: ScriptedService, found: Sequence[str], told: str
) -> None:
    resolver = Resolver(found)
    answer = post(Sender(allow_private=False, resolve=resolver), f"https://{NAME}:{port_of(receiver)}/")
    assert answer.outcome == "unsafe_address"
    assert answer.detail is not None
    assert answer.detail.startswith(f"{NAME} leads to ")
    assert told in answer.detail
    assert receiver.num_connections == 0


def test_an_address_in_the_url_is_checked_too(receiver: ScriptedService) -> None:
    assert post(Sender(allow_private=False), f"https://127.0.0.1:{port_of(receiver)}/").outcome == "unsafe_address"
    assert receiver.num_connections == 0


def test_the_connection_goes_to_the_address_that_was_checked(receiver: ScriptedService) -> None:
    """DNS rebinding: the name leads elsewhere when it is asked again. It is never asked again."""
    receiver.on("POST", "/", Reply())
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    answer = post(
        Sender(allow_private=True, resolve=resolver, timeout_seconds=PATIENCE), f"http://{NAME}:{port_of(receiver)}/"
    )
    assert answer.outcome == "delivered"
    assert resolver.asked == [(NAME, int(port_of(receiver)))]
    assert receiver.seen[0].headers["host"] == f"{NAME}:{port_of(receiver)}"


def test_a_name_that_turns_inside_after_the_check_gains_nothing(receiver: ScriptedService) -> None:
    """At first an address on the internet (one that nobody answers at), then this machine."""
    resolver = Resolver(["1.1.1.1"], ["127.0.0.1"])
    sender = Sender(allow_private=False, resolve=resolver, timeout_seconds=0.5)
    answer = post(sender, f"https://{NAME}:{port_of(receiver)}/")
    assert answer.outcome in {"unreachable", "timed_out"}
    assert len(resolver.asked) == 1
    assert receiver.num_connections == 0


def test_each_delivery_asks_and_checks_anew(receiver: ScriptedService) -> None:
    receiver.on("POST", "/", Reply())
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    sender = Sender(allow_private=True, resolve=resolver, timeout_seconds=PATIENCE)
    url = f"http://{NAME}:{port_of(receiver)}/"
    assert [post(sender, url).outcome for _ in range(2)] == ["delivered", "unsafe_address"]


def test_without_tls_nothing_leaves_this_machine() -> None:
    answer = post(Sender(allow_private=True, resolve=Resolver(["10.0.0.1"])), f"http://{NAME}/")
    assert answer.outcome == "unsafe_address"
    assert answer.detail is not None
    assert "without TLS" in answer.detail


def test_the_next_address_is_tried_where_one_does_not_answer(receiver: ScriptedService) -> None:
    receiver.on("POST", "/", Reply())
    resolver = Resolver(["::1", "127.0.0.1"])
    sender = Sender(allow_private=True, resolve=resolver, timeout_seconds=PATIENCE)
    assert post(sender, f"http://{NAME}:{port_of(receiver)}/").outcome == "delivered"


# TLS


@contextmanager
def tls_receiver(authority: trustme.CA, *names: str) -> Iterator[tuple[int, list[str | None], list[str | None]]]:
    """A receiver with a certificate for these names: its port, the names asked for by TLS, and the hosts by HTTP."""
    asked: list[str | None] = []
    hosts: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's word
            pass

    class Server(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust us hangs up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked, hosts
        finally:
            server.shutdown()
            thread.join()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_is_spoken_with_the_name_not_with_the_address() -> None:
    authority = trustme.CA()
    sender = Sender(
        allow_private=True, resolve=Resolver(["127.0.0.1"]), context=trusting(authority), timeout_seconds=PATIENCE
    )
    with tls_receiver(authority, NAME) as (port, asked, hosts):
        assert post(sender, f"https://{NAME}:{port}/").outcome == "delivered"
    assert (asked, hosts) == ([NAME], [f"{NAME}:{port}"])


@pytest.mark.parametrize(("names", "is_trusted"), [(["other.example"], True), ([NAME], False)])
def test_a_receiver_that_cannot_prove_its_name_gets_nothing(names: list[str], is_trusted: bool) -> None:
    authority = trustme.CA()
    context = trusting(authority if is_trusted else trustme.CA())
    sender = Sender(
        allow_private=True, resolve=Resolver(["127.0.0.1"]), context=context, timeout_seconds=PATIENCE
    )
    with tls_receiver(authority, *names) as (port, _, hosts):
        answer = post(sender, f"https://{NAME}:{port}/")
    assert (answer.outcome, hosts) == ("unreachable", [])
    assert answer.detail is not None
    assert "certificate" in answer.detail
