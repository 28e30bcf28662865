"""Azure's connection files as bodies of requests, and secrets that stay off the command line."""

from typing import Any

import pytest

from endpunkt_cli.connection_form import read_connection, without_secrets
from endpunkt_cli.files import BadFile, load


def read(text: str, **secrets: str) -> dict[str, Any]:
    resource = read_connection(load(text, "c.yml"), {name.replace("__", "."): value for name, value in secrets.items()})
    assert resource.address == {"name": "mine"}
    return resource.body


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (
            "name: mine\ntype: custom\nconfigs: {HOST: h}\nsecrets: {USER: u, PASSWORD: p}\n",
            {"type": "custom", "credentials": {"USER": "u", "PASSWORD": "p"}, "metadata": {"HOST": "h"}},
        ),
        (
            "name: mine\ntype: api_key\napi_base: https://a\napi_key: k\n",
            {"type": "api_key", "target": "https://a", "credentials": {"key": "k"}, "metadata": {}},
        ),
        (
            "$schema: https://s\nname: mine\ntype: azure_open_ai\nazure_endpoint: https://a\ntarget: https://a\n"
            "api_key: k\napi_version: 2024-02-01\nopen_ai_resource_id: /r\nis_shared: true\n",
            {
                "type": "azure_open_ai",
                "target": "https://a",
                "credentials": {"key": "k"},
                "metadata": {"ApiType": "Azure", "ApiVersion": "2024-02-01", "ResourceId": "/r"},
            },
        ),
        (
            "name: mine\ntype: git\ntarget: https://g\ncredentials: {type: pat, pat: p}\ntags: {a: b}\n",
            {
                "type": "git",
                "target": "https://g",
                "credentials": {"pat": "p"},
                "metadata": {},
                "tags": {"a": "b"},
            },
        ),
        (
            "name: mine\ntype: azure_blob\nurl: https://b\naccount_name: a\ncontainer_name: c\n"
            "credentials: {account_key: k}\n",
            {
                "type": "azure_blob",
                "target": "https://b",
                "credentials": {"account_key": "k"},
                "metadata": {"AccountName": "a", "ContainerName": "c"},
            },
        ),
        (
            "name: mine\ntype: azure_ai_search\nendpoint: https://s\ncredentials: {type: managed_identity}\n",
            {"type": "azure_ai_search", "target": "https://s", "credentials": {}, "metadata": {}},
        ),
    ],
)
def test_each_form_of_azure(text: str, body: dict[str, Any]) -> None:
    assert read(text) == body


def test_a_secret_of_its_own_file_goes_over_the_yaml() -> None:
    text = "name: mine\ntype: api_key\napi_base: https://a\n"
    assert read(text, api_key="k")["credentials"] == {"key": "k"}
    assert read(text + "api_key: placeholder\n", credentials__key="k")["credentials"] == {"key": "k"}
    assert read("name: mine\ntype: custom\n", secrets__A="x")["credentials"] == {"A": "x"}


def test_every_mistake_is_told_at_its_line_and_without_a_value() -> None:
    text = (
        "name: mine\ntype: custom\nendpoint: https://a\ntarget: https://b\napi_key: [s3cret]\n"
        "secrets:\n  'a b': s3cret\nkey: s3cret\n"
    )
    with pytest.raises(BadFile) as caught:
        read(text)
    told = str(caught.value)
    assert "c.yml:3: endpoint: contradicts `target`" in told
    assert "c.yml:5: credentials.key: Input should be a valid string" in told
    assert "c.yml:7: credentials.a b" in told
    assert "c.yml:8: key: unknown field" in told
    assert "s3cret" not in told


def test_what_the_api_refuses_is_told_where_the_file_has_it() -> None:
    resource = read_connection(load("name: mine\ntype: api_key\napi_base: a\napi_key: k\n", "c.yml"), {})
    assert str(resource.trouble("credentials.key", "is wrong")) == "c.yml:4: api_key: is wrong"
    assert str(resource.trouble("target", "is wrong")) == "c.yml:3: api_base: is wrong"


def test_secrets_are_not_typed_as_arguments() -> None:
    settings = ["tags.a=b", "credentials.type=pat", "credentials.key=@/k", "api_key=@-", "secrets.A.B=@x"]
    assert without_secrets(settings) == (
        ["tags.a=b", "credentials.type=pat"],
        {"credentials.key": "/k", "api_key": "-", "secrets.A.B": "x"},
    )
    bad = ["credentials.key=s3cret", "api_key=s3cret", "secrets.A=", "credentials=@f", "secrets.A=@"]
    with pytest.raises(BadFile) as caught:
        without_secrets([*bad, "tags.a=b"])
    assert len(caught.value.troubles) == len(bad)
    assert "every user of this machine can see" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(BadFile, match="standard input holds one secret"):
        without_secrets(["secrets.A=@-", "secrets.B=@-"])
