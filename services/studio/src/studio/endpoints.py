"""The routes of endpoints and deployments: Azure's ARM paths from `onlineEndpoints` and `batchEndpoints` on."""

from typing import Literal, cast
from uuid import UUID

from aiohttp import web

from contracts.messages import (
    CommandAccepted,
    DeleteDeployment,
    DeleteEndpoint,
    EndpointDesired,
    Message,
    SetAutoscale,
)
from contracts.shell.secrets import Sealer, SealError
from studio import requests, views
from studio.commands import Commands
from studio.replies import Refused, missing
from studio.server import body, command_id
from studio.tables import Tables

_ENDPOINTS = "/v1/{kind:onlineEndpoints|batchEndpoints}"
_ENDPOINT = _ENDPOINTS + "/{endpoint}"
_DEPLOYMENT = _ENDPOINT + "/deployments/{deployment}"
_ONLINE = "/v1/{kind:onlineEndpoints}/{endpoint}"


class Endpoints:
    """Handlers over the tables; what changes something goes through a command."""

    def __init__(self, tables: Tables, commands: Commands, sealer: Sealer, scoring_url: str, tenant: UUID):
        self._tables = tables
        self._commands = commands
        self._sealer = sealer
        self._scoring_url = scoring_url
        self._tenant = tenant

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        autoscale = f"{_ONLINE}/deployments/{{deployment}}/autoscale"
        return [
            web.get(_ENDPOINTS, self.list_endpoints),
            web.get(_ENDPOINT, self.show_endpoint),
            web.put(_ENDPOINT, self.create_endpoint),
            web.patch(_ENDPOINT, self.update_endpoint),
            web.delete(_ENDPOINT, self.delete_endpoint),
            web.get(f"{_ENDPOINT}/deployments", self.list_deployments),
            web.get(_DEPLOYMENT, self.show_deployment),
            web.put(_DEPLOYMENT, self.put_deployment),
            web.delete(_DEPLOYMENT, self.delete_deployment),
            web.get(f"{_ONLINE}/deployments/{{deployment}}/events", self.list_events),
            web.post(f"{_ONLINE}/deployments/{{deployment}}/getLogs", self.get_logs),
            web.get(autoscale, self.show_autoscale),
            web.put(autoscale, self.put_autoscale),
            web.delete(autoscale, self.delete_autoscale),
            web.post(f"{_ONLINE}/listKeys", self.list_keys),
            web.post(f"{_ONLINE}/regenerateKeys", self.regenerate_keys),
        ]

    async def list_endpoints(self, request: web.Request) -> web.Response:
        kind = _kind(request)
        entries = sorted(self._tables.desired.entries.items())
        return web.json_response(
            {"value": [self._view(request, endpoint) for _, endpoint in entries if endpoint.spec.kind == kind]}
        )

    async def show_endpoint(self, request: web.Request) -> web.Response:
        return web.json_response(self._view(request, self._endpoint(request)))

    async def create_endpoint(self, request: web.Request) -> web.Response:
        name = request.match_info["endpoint"]
        command = requests.create_endpoint(_kind(request), name, requests.body_of(await body(request)))
        await self._apply(request, command)
        return web.json_response(self._view(request, self._endpoint(request)), status=201)

    async def update_endpoint(self, request: web.Request) -> web.Response:
        name = self._not_of_the_other_kind(request)
        await self._apply(request, requests.update_endpoint(name, requests.body_of(await body(request))))
        return web.json_response(self._view(request, self._endpoint(request)))

    async def delete_endpoint(self, request: web.Request) -> web.Response:
        """204 when nothing is left of it; 202 while instances still end what they do, and its name is not free."""
        name = self._not_of_the_other_kind(request)
        before = self._tables.desired.entries.get(name)

        def gone(_: CommandAccepted) -> bool:
            now = self._tables.desired.entries.get(name)
            return now is None or before is None or now.created_at != before.created_at

        command = requests.command(DeleteEndpoint, {"endpoint": name})
        await self._commands.apply(command, command_id(request), gone)
        ended = await self._commands.settled(lambda: name not in self._tables.observed.entries)
        if ended:
            return web.Response(status=204)
        return web.json_response({"name": name, "provisioning_state": "Deleting"}, status=202)

    async def list_deployments(self, request: web.Request) -> web.Response:
        endpoint = self._endpoint(request)
        observed = self._tables.observed.entries.get(endpoint.endpoint)
        return web.json_response(
            {"value": [views.deployment(endpoint, observed, name) for name in sorted(endpoint.deployments)]}
        )

    async def show_deployment(self, request: web.Request) -> web.Response:
        return web.json_response(self._deployment_view(request))

    async def put_deployment(self, request: web.Request) -> web.Response:
        name = self._not_of_the_other_kind(request)
        deployment = request.match_info["deployment"]
        must = requests.precondition(request.headers.get("If-Match"), request.headers.get("If-None-Match"))
        command = requests.put_deployment(_kind(request), name, deployment, requests.body_of(await body(request)), must)
        before = self._tables.desired.entries.get(name)
        await self._apply(request, command)
        created = before is None or deployment not in before.deployments
        return web.json_response(self._deployment_view(request), status=201 if created else 200)

    async def delete_deployment(self, request: web.Request) -> web.Response:
        names = {"endpoint": self._not_of_the_other_kind(request), "deployment": request.match_info["deployment"]}
        await self._apply(request, requests.command(DeleteDeployment, names))
        return web.Response(status=204)

    async def list_events(self, request: web.Request) -> web.Response:
        """What happened last, oldest first. Those of a deployment that is gone are told for a while."""
        endpoint, name = self._endpoint(request), request.match_info["deployment"]
        events = self._tables.events(endpoint.endpoint, name)
        if not events:
            self._deployment(request)
        return web.json_response({"value": [views.event(event) for event in events]})

    async def get_logs(self, request: web.Request) -> web.Response:
        name, deployment = self._not_of_the_other_kind(request), request.match_info["deployment"]
        id = command_id(request)
        read = await self._commands.ask(requests.get_logs(name, deployment, requests.body_of(await body(request))), id)
        try:
            content = self._sealer.open(read.sealed, f"{read.command_id}/logs")
        except SealError as error:
            raise Refused(500, "InternalServerError", f"{error}: give studio the home of the provisioner") from None
        return web.json_response({"content": content}, headers={"Cache-Control": "no-store"})

    async def show_autoscale(self, request: web.Request) -> web.Response:
        endpoint, deployment = self._deployment(request)
        last = self._tables.decisions.entries.get(f"{endpoint.endpoint}/{deployment}")
        document = views.autoscale(endpoint, deployment, last)
        if document is None:
            raise missing(f"autoscale setting of deployment '{deployment}' of endpoint '{endpoint.endpoint}'")
        return web.json_response(document)

    async def put_autoscale(self, request: web.Request) -> web.Response:
        name = self._not_of_the_other_kind(request)
        setting = requests.body_of(await body(request))
        await self._apply(request, requests.set_autoscale(name, request.match_info["deployment"], setting))
        return await self.show_autoscale(request)

    async def delete_autoscale(self, request: web.Request) -> web.Response:
        names = {"endpoint": self._not_of_the_other_kind(request), "deployment": request.match_info["deployment"]}
        await self._apply(request, requests.command(SetAutoscale, {**names, "autoscale": None}))
        return web.Response(status=204)

    async def list_keys(self, request: web.Request) -> web.Response:
        endpoint = self._endpoint(request)
        if endpoint.keys is None:
            raise missing(f"key of endpoint '{endpoint.endpoint}'")
        try:
            keys = {
                "primaryKey": self._sealer.open(endpoint.keys.primary.sealed, f"{endpoint.endpoint}/primary"),
                "secondaryKey": self._sealer.open(endpoint.keys.secondary.sealed, f"{endpoint.endpoint}/secondary"),
            }
        except SealError as error:
            hint = f"{error}: give studio the home of the provisioner that made them, or regenerate them"
            raise Refused(500, "InternalServerError", hint) from None
        return web.json_response(keys, headers={"Cache-Control": "no-store"})

    async def regenerate_keys(self, request: web.Request) -> web.Response:
        name = self._not_of_the_other_kind(request)
        await self._apply(request, requests.regenerate_key(name, requests.body_of(await body(request))))
        return web.json_response(self._view(request, self._endpoint(request)))

    async def _apply(self, request: web.Request, command: Message) -> None:
        """Apply a command about the endpoint in the path; return when the desired table holds its generation."""

        def visible(accepted: CommandAccepted) -> bool:
            entry = self._tables.desired.entries.get(accepted.subject)
            return entry is not None and entry.generation >= accepted.generation

        await self._commands.apply(command, command_id(request), visible)

    def _endpoint(self, request: web.Request) -> EndpointDesired:
        name, kind = request.match_info["endpoint"], _kind(request)
        endpoint = self._tables.desired.entries.get(name)
        if endpoint is None or endpoint.spec.kind != kind:
            raise missing(f"{kind} endpoint '{name}'")
        return endpoint

    def _not_of_the_other_kind(self, request: web.Request) -> str:
        """The endpoint's name, for a command. Whether it exists is for the provisioner to say, as this table may lag;
        but a command does not say a kind, so what is known to be of the other kind is not at this address."""
        name, kind = request.match_info["endpoint"], _kind(request)
        endpoint = self._tables.desired.entries.get(name)
        if endpoint is not None and endpoint.spec.kind != kind:
            raise missing(f"{kind} endpoint '{name}'; it is a {endpoint.spec.kind} endpoint")
        return name

    def _deployment(self, request: web.Request) -> tuple[EndpointDesired, str]:
        endpoint, name = self._endpoint(request), request.match_info["deployment"]
        if name not in endpoint.deployments:
            raise missing(f"deployment '{name}' of endpoint '{endpoint.endpoint}'")
        return endpoint, name

    def _view(self, request: web.Request, endpoint: EndpointDesired) -> views.Document:
        observed = self._tables.observed.entries.get(endpoint.endpoint)
        return views.endpoint(endpoint, observed, self._scoring_url, str(request.url.origin()), self._tenant)

    def _deployment_view(self, request: web.Request) -> views.Document:
        endpoint, name = self._deployment(request)
        return views.deployment(endpoint, self._tables.observed.entries.get(endpoint.endpoint), name)


def _kind(request: web.Request) -> Literal["online", "batch"]:
    return cast(Literal["online", "batch"], request.match_info["kind"].removesuffix("Endpoints"))
