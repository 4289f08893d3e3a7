"""Who is let in: no other host, no other site, nobody without the token; and no folder is opened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from rvelens.app.guard import is_local
from rvelens.app.settings import CHOICES, settings_of
from rvelens.app.shared import scenes


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The printed address, in an environment that would open a folder to everybody."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "secret.txt").write_text("a secret")
    opened = {"GRADIO_ALLOWED_PATHS": str(folder), "GRADIO_MCP_SERVER": "True"}
    # In a process of its own: Gradio's threads leave event loops open.
    app = subprocess.Popen(
        [sys.executable, "-m", "rvelens", "app", "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=os.environ | opened | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with app:
        try:
            yield app.stdout.readline().split()[3], folder
        finally:
            app.send_signal(signal.SIGINT)


@pytest.fixture
def inside(address):
    """A client that came by the printed address."""
    page, _, _ = address[0].partition("?")
    with httpx.Client(base_url=page, timeout=60) as client:
        first = client.get(address[0])
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert "HttpOnly" in first.headers["set-cookie"]
        assert "SameSite=strict" in first.headers["set-cookie"]
        yield client


PATHS = ("/", "/config", "/gradio_api/info", "/gradio_api/upload", "/gradio_api/file=/etc/hostname")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_answered_without_the_token(address, path, method):
    page, _, _ = address[0].partition("?")
    for url in (page + path[1:], f"{page}{path[1:]}?token=guessed", f"{page}{path[1:]}?token="):
        reply = httpx.request(method, url, timeout=60)
        assert reply.status_code == 403
        assert "expected the whole address that `rvelens app` printed" in reply.text


def test_the_page_is_answered_with_the_token(inside):
    for path in ("/", "/config", "/gradio_api/info"):
        assert inside.get(path).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", PATHS)
def test_another_host_is_refused_even_with_the_token(inside, host, path):
    reply = inside.get(path, headers={"Host": host})
    assert reply.status_code in (400, 403)
    assert "root" not in reply.text


def test_another_site_is_refused_even_with_the_token(inside):
    files = {"files": ("a.png", b"a picture", "image/png")}
    page = str(inside.base_url).rstrip("/")
    for origin in ("http://evil.example", "null", "https://127.0.0.1", page.replace("127", "128")):
        sent = inside.post("/gradio_api/upload", files=files, headers={"Origin": origin})
        assert (sent.status_code, "expected the page itself" in sent.text) == (403, True)
    sent = inside.post("/gradio_api/upload", files=files, headers={"Origin": page})
    assert sent.status_code == 200


def test_gradios_environment_opens_nothing(address, inside):
    secret = address[1] / "secret.txt"
    assert inside.get(f"/gradio_api/file={secret}").status_code in (403, 404)
    assert inside.get("/gradio_api/mcp/schema").status_code == 404


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:7860", True), ("localhost", True), ("LocalHost:1", True), ("[::1]:7860", True),
        ("", False), ("evil", False), ("127.0.0.1@evil", False), ("evil@127.0.0.1", False),
        ("localhost:x", False), ("localhost:", False), ("127.0.0.1.evil", False), ("[::1", False),
        ("localhost/evil", False), ("localhost#", False), ("127.0.0.1:7860:1", False),
    ],
)  # fmt: skip
def test_hosts(host, local):
    assert is_local(host) is local


def called(client, window, name, *data):
    """What a function of the page gives a window, as the page itself would ask for it."""
    body = {"data": list(data), "session_hash": window}
    event = client.post(f"/gradio_api/call/{name}", json=body).raise_for_status().json()["event_id"]
    lines = client.get(f"/gradio_api/call/{name}/{event}").text.splitlines()
    return json.loads(next(line[6:] for line in reversed(lines) if line.startswith("data: ")))


def without_numbers(html):
    return re.sub(r'data-number="\w+"', "", html)


def test_the_state_of_an_address_outlives_the_token(address):
    reply = httpx.get(f"{address[0]}&scene=3&question=Is+it+%26%3F", timeout=60)
    assert (reply.status_code, reply.headers["location"]) == (
        303,
        "/?scene=3&question=Is+it+%26%3F",
    )


def test_a_measured_profile_changes_no_other_window(inside, tmp_path):
    picture = str(tmp_path / "a.png")
    scenes()[0].image.save(picture)
    with open(picture, "rb") as file:
        (sent,) = inside.post("/gradio_api/upload", files={"files": file}).json()
    image = {"path": sent, "meta": {"_type": "gradio.FileData"}}
    settings = [setting.default for method in CHOICES for setting in settings_of(method)]
    wanted = [image, scenes()[0].text, "rve", "none", *settings]

    def conditions(window):
        return without_numbers(
            next(x for x in called(inside, window, "run", *wanted) if "greedy" in str(x))
        )

    before = conditions("b")
    assert called(inside, "a", "remeasure")[-1] == ""  # no message
    assert "head profile measured on 64 pairs, not saved" in conditions("a")
    assert conditions("b") == before
    assert "its shipped head profile" in before
    failed = called(inside, "a", "run", image, " ", "rve", "none", *settings)
    assert "rv-answer" not in str(failed)  # nothing of the last answer stays
    assert "expected a sentence" in failed[-1]
