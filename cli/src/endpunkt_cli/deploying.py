"""From a deployment's file to a deployment that is ready: what `create` and `update` of both kinds do."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from endpunkt_cli.client import ApiError
from endpunkt_cli.errors import CliError
from endpunkt_cli.options import tell
from endpunkt_cli.resources import POLL_SECONDS, Document, Kind, resource_of, sent, source_of
from endpunkt_cli.session import session

if TYPE_CHECKING:
    from endpunkt_cli.forms import Resource


@dataclass(frozen=True)
class Deploying:
    """What a person asks of `create` or `update`, of either kind. Without a file, the deployment as it is gets the
    settings."""

    kind: Kind
    must: Literal["create", "update"]
    file: Path | None
    name: str | None
    endpoint: str | None
    settings: Sequence[str] | None
    local_environment: bool = False
    skip_script_validation: bool = False

    def put(self) -> "Put":
        """Send it: what is local is uploaded first, and an inline model with a version registered."""
        resource = self.resource()
        if not self.skip_script_validation:
            check_script_of(resource)
        endpoint, name = resource.address["endpoint_name"], resource.address["name"]
        path = (f"{self.kind}Endpoints", endpoint, "deployments", name)
        seen = events(self.kind, endpoint, name)
        body = sent(resource, lambda: _stored(resource))
        condition = {"If-None-Match": "*"} if self.must == "create" else {"If-Match": "*"}
        document = sent(resource, lambda: session.studio.send("PUT", *path, body=body, headers=condition))
        return Put(self.kind, endpoint, name, document, seen)

    def resource(self) -> "Resource":
        """The file, or the deployment as it is, with the options over it. Raises BadFile."""
        base = None
        if self.file is None:
            if self.name is None or self.endpoint is None or not (self.settings or self.local_environment):
                raise typer.BadParameter("give --file, or --name, --endpoint-name and --set")
            base = session.studio.get(f"{self.kind}Endpoints", self.endpoint, "deployments", self.name)["properties"]
        source = source_of(self.file, {"name": self.name, "endpoint_name": self.endpoint}, base)
        return resource_of(f"{self.kind}-deployment", source, self.file, self.settings, self.local_environment)


@dataclass(frozen=True)
class Put:
    """A deployment that was sent, with the events that it had before."""

    kind: Kind
    endpoint: str
    name: str
    document: Document
    seen: list[Document]

    def until_ready(self) -> Document:
        """Wait for it to be Succeeded, telling each change and event. Raises CliError when it is Failed."""
        return until_ready(self.kind, self.endpoint, self.name, self.seen)


def check_script_of(resource: "Resource") -> None:
    """Raises BadFile when a script that lies here can't be one; what lies elsewhere is left to the provisioner."""
    from endpunkt_cli.files import BadFile, Trouble
    from endpunkt_cli.references import path_of
    from endpunkt_cli.script_check import check_script

    configuration = resource.body.get("code_configuration") or {}
    folder = path_of(configuration.get("code"))
    if folder is None or not Path(folder).is_dir():
        return
    script = Path(folder, configuration["scoring_script"])
    if not script.is_file():
        hint = f"there is no such file in {os.path.relpath(folder)}"
        raise BadFile([resource.trouble("code_configuration.scoring_script", hint)])
    if troubles := check_script(script.read_bytes(), os.path.relpath(script)):
        raise BadFile([*troubles, Trouble("", "", "--skip-script-validation sends the script as it is")])


def _stored(resource: "Resource") -> Document:
    """The body with what lies here uploaded, and the model under the name that it says."""
    from endpunkt_cli.upload import uploaded

    body = uploaded(resource)
    if (about := resource.register) is not None:
        about = dict(about)
        address = ("models", about.pop("name"), "versions", about.pop("version"))
        given = {name: body["model"][name] for name in ("path", "type") if name in body["model"]}
        fields = {name: f"model.{name}" for name in ("name", "version", "type", "path", "description", "tags")}
        made = sent(
            replace(resource, renamed=fields),
            lambda: session.studio.send("PUT", *address, body={**given, **about}),
        )
        body["model"] = {"id": made["id"]}
    return body


def events(kind: Kind, endpoint: str, name: str) -> list[Document]:
    """What happened to a deployment's instances lately, oldest first. One that is not there has none, and a batch
    deployment has no instances of its own."""
    if kind == "batch":
        return []
    try:
        found: list[Document] = session.studio.get("onlineEndpoints", endpoint, "deployments", name, "events")["value"]
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    return found


def until_ready(kind: Kind, endpoint: str, name: str, seen: list[Document]) -> Document:
    """Wait for a deployment to be Succeeded, telling each change and each event that is not among `seen`. Raises
    CliError when it is Failed."""
    told, seen = "", list(seen)
    try:
        while True:
            document: Document = session.studio.get(f"{kind}Endpoints", endpoint, "deployments", name)
            for event in events(kind, endpoint, name):
                if event not in seen:
                    tell(_told(event))
                    seen.append(event)
            state = document["provisioning_state"]
            line = f"{endpoint}/{name}: {state}"
            if "instances" in document:
                line += f", {document['ready_instances']} of {document['desired_instances']} instances ready"
            if line != told:
                tell(line)
                told = line
            if state == "Succeeded":
                return document
            if state == "Failed":
                raise CliError(_failure(f"{endpoint}/{name}", document["error"]))
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        tell(f"It goes on: endpunkt {kind}-deployment show -e {endpoint} -n {name} tells how.")
        raise typer.Exit(130) from None


def _told(event: Document) -> str:
    """An event as a line: its second, what it is about, what it is."""
    about = f" {event['instance']}" if event["instance"] else ""
    return f"  {event['at'][11:19]} {event['reason']}{about}: {event['message']}"


def _failure(what: str, error: Document | None) -> str:
    if error is None:
        return f"{what} failed without a reason: see the provisioner's log"
    lines = [f"{what} failed: {error['code']}: {error['message']}"]
    if error["log_tail"]:
        lines += ["The end of its log:", *(f"  {line}" for line in error["log_tail"])]
    return "\n".join(lines)
