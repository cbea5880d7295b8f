from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ue_bench.errors import EnvironmentProblem, ValidationError
from ue_bench.leaderboard import build, serving
from ue_bench.leaderboard.serving import Pages, Server
from ue_bench.store.results import ResultStore

from .factory import BOARD, result
from .folders import write_results


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a board with one result."""
    write_results(tmp_path / "board", [result("em", "vanilla", 12.5)])
    return tmp_path / "board"


@pytest.fixture
def server(out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of that board which looks at the folder at every request."""
    monkeypatch.setattr(serving, "PAUSE", 0.0)
    store = ResultStore(out)
    pages = Pages(out, lambda: build.render(store.results(), BOARD), lambda: [out])
    with Server(pages, port=0, refresh=7) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", host: str = "") -> tuple[int, dict[str, str], str]:
    """Return status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest(method, path, skip_host=bool(host))
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers.items()), text


def test_pages_are_those_of_the_results_that_are_there_now(server: Server, out: Path) -> None:
    status, headers, text = ask(server, "/")
    assert (status, headers["Content-Type"], headers["Refresh"]) == (200, "text/html; charset=utf-8", "7")
    assert "em against vanilla: 12.5 %" in text
    assert ",77.7," not in ask(server, "/leaderboard.csv")[2]

    write_results(out, [result("ar", "vanilla", 77.7)])

    assert ",77.7," in ask(server, "/leaderboard.csv?x=1")[2]
    assert ask(server, "/index.html")[2] != text
    assert sorted(path.name for path in out.iterdir()) == ["results"]  # nothing is written


def test_pages_are_made_once_for_the_same_results(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PAUSE", 0.0)
    made: list[int] = []

    def make() -> dict[str, str]:
        made.append(1)
        return {"index.html": "x"}

    pages = Pages(out, make, lambda: [out])

    assert pages.content("/") == (b"x", "text/html; charset=utf-8")
    pages.content("/index.html")
    assert len(made) == 1
    (out / "submissions.json").write_text("[]", encoding="utf-8")
    pages.content("/")
    assert len(made) == 2


def test_results_are_served_too(server: Server, out: Path) -> None:
    [path] = (out / "results").rglob("*.json")

    status, headers, text = ask(server, "/" + path.relative_to(out).as_posix())

    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert text == path.read_text(encoding="utf-8")
    assert "Refresh" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.json", "/%2e%2e/secret.json", "/results/../../secret.json", "/results//../../secret.json",
        "/..%5csecret.json", "/link.json", "/.hidden.json", "/results/.hidden.json", "/none.json", "/results", "/x.py",
        "/%00.json",
    ],
)  # fmt: skip
def test_nothing_outside_the_folder_and_nothing_hidden_is_served(server: Server, out: Path, path: str) -> None:
    (out.parent / "secret.json").write_text("secret", encoding="utf-8")
    for name in (".hidden.json", "results/.hidden.json", "x.py"):
        (out / name).write_text("secret", encoding="utf-8")
    (out / "link.json").symlink_to(out.parent / "secret.json")

    status, _, text = ask(server, path)

    assert (status, text) == (404, "there is no such page\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_names_that_were_made_to_lead_here_are_refused(server: Server, host: str) -> None:
    assert ask(server, "/", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1"])
def test_this_machine_may_call_itself_as_it_likes(server: Server, host: str) -> None:
    assert ask(server, "/", host=host)[0] == 200


def test_head_has_no_body_and_nothing_can_be_sent(server: Server) -> None:
    status, headers, text = ask(server, "/", method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert ask(server, "/", method="POST")[0] == 501


def test_what_cannot_be_made_is_said(out: Path) -> None:
    def fails() -> dict[str, str]:
        raise ValidationError("a file is wrong", "restore it")

    with Server(Pages(out, fails, lambda: [out]), port=0, refresh=0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        status, headers, text = ask(running, "/")
        running.shutdown()
        thread.join()

    assert (status, text) == (503, "a file is wrong\nrestore it\n")
    assert "Refresh" not in headers


def test_only_this_machine_is_answered_and_a_taken_port_is_said(server: Server) -> None:
    address, port = server.server_address[:2]
    assert address == "127.0.0.1"
    with pytest.raises(EnvironmentProblem, match=f"port {port} cannot be used"):
        Server(server.pages, int(port), 0)
