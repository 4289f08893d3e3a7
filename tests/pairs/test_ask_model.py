"""Pairs by a vision model, over real HTTP, against a small server."""

from __future__ import annotations

import base64
import io
import json

import pytest
from judge_server import completion, judge_server
from PIL import Image
from tiny_models import IMAGES

from rvelens.judge.endpoint import Endpoint, Reply, connect, data_url
from rvelens.pairs.ask_model import (
    JUDGEMENT,
    PROPOSAL,
    BadReplyError,
    RequestFailedError,
    by_model,
    read_reply,
    schema,
)
from rvelens.pairs.find import NotMadeError
from rvelens.pairs.generate import ImageQuestion

KEY = "sk-very-secret-0123456789"
TEXT = "Is the man  holding a bat in the image ?"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def question(tmp_path):
    IMAGES[0].resize((2000, 1000)).save(tmp_path / "1.png")
    return lambda text=TEXT: ImageQuestion("q", "1.png", tmp_path / "1.png", text)


def proposal(new, verb="holding"):
    return {"verb": verb, "body_part": "hand", "new_verb": new, "new_body_part": "foot"}


def judgement(part=True, syntax=True, reason="Kicking is done by the foot."):
    return {"distinct_body_part": part, "fits_syntax": syntax, "reason": reason}


def scripted(*replies):
    """A server's answers in their order: objects, texts, or (status, body)."""

    def answer(prompt, n):
        reply = replies[n]
        if isinstance(reply, tuple):
            return reply
        return 200, completion(reply if isinstance(reply, str) else json.dumps(reply))

    return answer


def ask_for(server, question, **options):
    endpoint = Endpoint("m", server.base_url, max_retries=0)
    with connect(endpoint) as ask:
        return by_model(ask, endpoint, **options)(question)


def prompt_of(request):
    return request["messages"][0]["content"][1]["text"]


def test_proposed_and_verified(question):
    with judge_server(scripted(proposal("kicking"), judgement())) as server:
        made = ask_for(server, question())
    assert made.contrastive == "Is the man  kicking a bat in the image ?"
    assert (made.verb, made.candidate, made.attempts) == ("holding", "kicking", 1)
    assert [(v.by, v.fits) for v in made.verdicts] == [("table", True), ("m", True)]
    assert made.verdicts[1].reason == "Kicking is done by the foot."
    assert len(server.requests) == 2
    assert TEXT in prompt_of(server.requests[0])
    assert made.contrastive in prompt_of(server.requests[1])


def test_the_image_and_the_schema_are_sent(question):
    with judge_server(scripted(proposal("kicking"), judgement())) as server:
        ask_for(server, question())
    for request, fields in zip(server.requests, (PROPOSAL, JUDGEMENT), strict=True):
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        head, _, data = url.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (768, 384)
        sent = request["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"] == {"name": "answer", "strict": True, "schema": schema(fields)}


def test_a_small_image_is_not_blown_up():
    url = data_url(Image.new("RGB", (40, 20)))
    assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (40, 20)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ([proposal("touching")], "same part: hand"),
        ([proposal("kick")], "no verb of the form of 'holding'"),
        ([proposal("sitting on")], "is not one word"),
        ([proposal("kicking", "reading")], "'reading' stands 0 times in the question"),
        ([proposal("kicking", "bat in")], "is in no dictionary of verbs"),
        (["kicking"], "not JSON"),
        (["1" * 5000], "a number that is too long"),
        (["[" * 100_000], "nested too deeply"),
        ([json.dumps(proposal("kick\ud800"))], "half of a character"),
        ([proposal("biting"), judgement(part=False, reason="Same part.")], "Same part."),
        ([proposal("biting"), judgement(syntax=False, reason="Odd.")], "Odd."),
        ([proposal("biting"), judgement() | {"distinct_body_part": "yes"}], "an object of"),
    ],
)
def test_what_fails_is_proposed_anew(question, first, reason):
    with judge_server(scripted(*first, proposal("kicking"), judgement())) as server:
        made = ask_for(server, question())
    assert (made.candidate, made.attempts) == ("kicking", 2)
    assert reason in next(v for v in made.verdicts if not v.fits).reason
    refused = made.verdicts[-3].candidate
    assert (f"{refused} (" in prompt_of(server.requests[-2])) == bool(refused)


def test_attempts_are_bounded(question):
    with judge_server(scripted(*[proposal("touching")] * 3)) as server:
        with pytest.raises(NotMadeError, match=r"none of 3 attempts fits: .*same part"):
            ask_for(server, question(), attempts=3)
        assert len(server.requests) == 3


def test_a_verb_that_the_rules_do_not_know(question):
    text = "The men Yodel at a bat"
    with judge_server(scripted(proposal("kick", "Yodel"), judgement())) as server:
        assert ask_for(server, question(text)).contrastive == "The men Kick at a bat"


def test_where_the_rules_see_two_verbs_the_model_says_which(question):
    text = "Does the soft drink stand on it?"
    with judge_server(scripted(proposal("lie", "stand"), judgement())) as server:
        assert ask_for(server, question(text)).contrastive == "Does the soft drink lie on it?"


def test_a_verb_that_stands_twice_is_not_guessed(question):
    with (
        judge_server(scripted(proposal("kick", "hold"))) as server,
        pytest.raises(NotMadeError, match="'hold' stands 2 times"),
    ):
        ask_for(server, question("Hold a hold"), attempts=1)


def test_a_failed_request_is_told_apart_and_shows_no_key(question):
    body = {"error": {"message": f"bad key {KEY}"}}
    with (
        judge_server(scripted((401, body))) as server,
        pytest.raises(RequestFailedError, match="the request failed: ") as error,
    ):
        ask_for(server, question())
    assert KEY not in str(error.value)


def test_a_torn_image_is_a_reason(question):
    torn = question()
    torn.path.write_bytes(torn.path.read_bytes()[:200])
    with (
        judge_server(scripted()) as server,
        pytest.raises(NotMadeError, match="cannot be read as an image"),
    ):
        ask_for(server, torn)


def test_replies_are_kept_and_asked_for_once(question, tmp_path):
    replies = ["no JSON", proposal("kicking"), judgement()]
    with judge_server(scripted(*replies)) as server:
        first = ask_for(server, question(), cache_dir=tmp_path / "cache")
        second = ask_for(server, question(), cache_dir=tmp_path / "cache")
        assert first == second
        assert first.attempts == 2
        assert len(server.requests) == 3
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 3
    assert not any(KEY in file.read_text() for file in files)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[]", "an object of verb, body_part"),
        (json.dumps({"verb": "hold"}), "not an object"),
        (json.dumps(proposal("kick") | {"more": 1}), "not an object"),
        (json.dumps(proposal(1)), "not an object"),
        ("```json\n" + json.dumps(proposal("kick")) + "\n```", "not JSON"),
    ],
)
def test_replies_of_another_form(text, says):
    with pytest.raises(BadReplyError, match=says):
        read_reply(Reply(text, "stop"), PROPOSAL)


def test_a_reply_that_was_cut_off():
    with pytest.raises(BadReplyError, match="cut off"):
        read_reply(Reply(json.dumps(proposal("kick")), "length"), PROPOSAL)
    assert read_reply(Reply(json.dumps(proposal("kick")), "stop"), PROPOSAL)["new_verb"] == "kick"
