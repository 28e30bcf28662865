"""Routes: which requests need user code, how the others are answered, and what each protocol's faults look like; the
sample request of a warm-up."""

import json
from pathlib import Path
from typing import Any

import pytest

from inference_server import v2, warm_up
from inference_server.http import Request
from inference_server.inputs import InputError, SignatureError
from inference_server.replies import Replies, Reply
from inference_server.response import AMLResponse
from inference_server.routes import Call, Routes, fixed
from inference_server.scoring import Scoring
from inference_server.script import ScriptError
from inference_server.settings import Settings


def request(method: str, target: str, body: bytes = b"", **headers: str) -> Request:
    return Request(method, target, {k.replace("_", "-"): v for k, v in headers.items()}, body, False, False)


def told(reply: Reply | None) -> tuple[int, Any]:
    assert reply is not None
    text = reply.body.decode()
    return int(reply.head.split(b" ")[1]), json.loads(text) if text.startswith(("{", "[", '"')) else text


def run(data: str) -> Any:
    if data == "unfit":
        raise InputError(422, "does not fit")
    return data


def missing(request: Request) -> Any:
    raise InputError(404, "no such page")


@pytest.fixture
def scoring() -> Scoring:
    call = Call(lambda request: {"data": request.body.decode()}, run)
    pages = {"/page": fixed("text/plain", b"page"), "/missing": missing}
    return Scoring(Routes({"/score": call, "/invocations": call, "/v2/infer": call}, pages), Replies("v"), 1000, 10)


@pytest.mark.parametrize(
    ("method", "target", "status", "answer"),
    [
        ("GET", "/", 200, "Healthy"),
        ("GET", "/?x", 200, "Healthy"),
        ("GET", "/page?x=1", 200, "page"),
        ("HEAD", "/page", 200, "page"),
        ("OPTIONS", "/page", 200, ""),
        ("POST", "/page", 405, None),
        ("GET", "/missing", 404, {"message": "no such page"}),
        ("GET", "/score", 405, None),
        ("HEAD", "/score", 405, None),
        ("OPTIONS", "/score?x", 200, ""),
        ("GET", "/nowhere", 404, None),
        ("GET", "/score/", 404, None),
    ],
)
def test_requests_that_need_no_user_code(
    scoring: Scoring, method: str, target: str, status: int, answer: object
) -> None:
    answered, body = told(scoring.answer(request(method, target)))
    assert answered == status
    assert answer is None or body == answer


@pytest.mark.parametrize("target", ["/score", "/score?a=1", "/invocations", "/v2/infer"])
def test_requests_for_user_code(scoring: Scoring, target: str) -> None:
    asked = request("POST", target, b"x")
    assert scoring.answer(asked) is None
    assert told(scoring.score(asked)) == (200, "x")


@pytest.mark.parametrize(
    ("target", "document"),
    [
        ("/score", {"message": "does not fit"}),
        ("/invocations", {"error_code": "INTERNAL_ERROR", "message": "does not fit"}),
        ("/v2/infer", {"error": "does not fit"}),
    ],
)
def test_each_protocol_has_its_faults(scoring: Scoring, target: str, document: object) -> None:
    assert told(scoring.score(request("POST", target, b"unfit"))) == (422, document)
    assert list(told(scoring.answer(request("GET", "/v2/nowhere")))[1]) == ["error"]
    assert told(scoring.timed_out(request("POST", target)))[0] == 500


def test_an_answer_that_is_too_large(scoring: Scoring) -> None:
    status, answer = told(scoring.score(request("POST", "/score", b"123456789")))
    assert (status, answer["message"]) == (500, "run() returned 11 bytes; an answer may have 10.")


def test_a_watched_scorer() -> None:
    seen: list[str] = []

    def watched(score: Any) -> Any:
        def watching(request: Request) -> Reply:
            seen.append(request.target)
            reply: Reply = score(request)
            return reply

        return watching

    call = Call(lambda request: {"data": ""}, run)
    scoring = Scoring(Routes({"/score": call}), Replies("v"), 1000, watched=watched)
    scoring.score(request("POST", "/score"))
    scoring.invoke(request("POST", "/score?unwatched"))
    assert seen == ["/score"]


# -- the v2 protocol


def protocol(predict: Any) -> Scoring:
    settings = Settings.from_environ({"ENDPUNKT_DEPLOYMENT": "m", "ENDPUNKT_PROTOCOL": "v2"})
    routes = v2.routes(
        settings, "python", v2.script_predict(predict, False, False), lambda: {"inputs": [], "outputs": []}
    )
    return Scoring(routes, Replies("v"), 1000)


X = {"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}


def infer(predict: Any, document: object, **headers: str) -> tuple[int, Any]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return told(protocol(predict).score(request("POST", "/v2/models/m/infer", body, **headers)))


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b"{", {}, "The inference request could not be decoded as JSON"),
        ([], {}, "An inference request is an object with a list 'inputs' of one or more tensors."),
        ({"inputs": []}, {}, "An inference request is an object with a list 'inputs' of one or more tensors."),
        ({"inputs": [X, X]}, {}, "input 'x' is given twice"),
        ({"inputs": [X], "outputs": [1]}, {}, "'outputs' must be a list of objects with a 'name'."),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, {}, "The model has no output z; it gave output-0."),
        ({"inputs": [X]}, {"inference_header_content_length": "-1"}, "Inference-Header-Content-Length='-1' is not a"),
        ({"inputs": [X]}, {"inference_header_content_length": "999"}, "Inference-Header-Content-Length='999' is not a"),
        (json.dumps({"inputs": [X]}).encode() + b"12", {"inference_header_content_length": "75"}, "2 bytes of binary"),
    ],
)
def test_bad_inference_requests(body: object, headers: dict[str, str], says: str) -> None:
    status, answer = infer(lambda inputs: inputs["x"], body, **headers)
    assert (status, answer["error"][: len(says)]) == (400, says)


def test_what_a_script_may_return() -> None:
    import pandas as pd

    def outputs(value: Any) -> Any:
        return infer(lambda inputs: value, {"inputs": [X]})[1]

    assert [output["name"] for output in outputs([1])["outputs"]] == ["output-0"]
    assert [output["name"] for output in outputs({"a": 1, "b": [2]})["outputs"]] == ["a", "b"]
    assert [output["data"] for output in outputs(pd.DataFrame({"a": [1], "b": ["x"]}))["outputs"]] == [[1], ["x"]]
    assert outputs(AMLResponse({"own": 1}, 200, json_str=True)) == {"own": 1}
    assert outputs({})["outputs"] == []
    status, answer = infer(lambda inputs: None, {"inputs": [X]})
    assert (status, answer) == (500, {"error": "run() returned what the v2 protocol cannot send: None"})


def test_rawhttp_has_no_tensors() -> None:
    with pytest.raises(SignatureError, match="cannot be served with the v2 protocol"):
        v2.script_predict(lambda data: data, raw=True, schema=False)


# -- the warm-up


@pytest.mark.parametrize(
    ("name", "kind"), [("sample", "application/json"), ("sample.json", "application/json"), ("s.csv", "text/csv")]
)
def test_a_sample_is_scored_like_a_request(tmp_path: Path, name: str, kind: str) -> None:
    seen: list[Request] = []

    def parse(request: Request) -> Any:
        seen.append(request)
        return {"data": ""}

    (tmp_path / name).write_bytes(b"body")
    settings = Settings.from_environ({"ENDPUNKT_WARMUP_FILE": str(tmp_path / name)})
    warm_up.run(Scoring(Routes({"/score": Call(parse, run)}), Replies("v"), 1000), settings)
    (asked,) = seen
    assert (asked.method, asked.target, asked.body, asked.headers["content-type"]) == ("POST", "/score", b"body", kind)


def test_no_sample_no_warm_up(scoring: Scoring) -> None:
    warm_up.run(scoring, Settings.from_environ({}))


def test_a_stream_that_breaks_off_in_a_warm_up(tmp_path: Path) -> None:
    def stream(data: str) -> Any:
        yield "first"
        raise RuntimeError("broken off")

    (tmp_path / "s").write_bytes(b"")
    settings = Settings.from_environ({"ENDPUNKT_WARMUP_FILE": str(tmp_path / "s")})
    scoring = Scoring(Routes({"/score": Call(lambda request: {"data": ""}, stream)}), Replies("v"), 1000)
    with pytest.raises(ScriptError, match="broke off: RuntimeError: broken off") as failed:
        warm_up.run(scoring, settings)
    assert failed.value.code == "UserScriptInitFailed"
