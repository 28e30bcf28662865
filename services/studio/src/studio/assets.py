"""The routes of registered assets: ARM's models, environments, codes and data, each by name and version."""

from typing import NamedTuple

from aiohttp import web

from contracts.messages import (
    AssetRegistered,
    CommandAccepted,
    RegisterAsset,
    RegisterCode,
    RegisterData,
    RegisterEnvironment,
    RegisterModel,
)
from studio import requests, views
from studio.commands import Commands
from studio.replies import Refused, missing
from studio.server import body, command_id
from studio.tables import Tables


class _Kind(NamedTuple):
    command: type[RegisterAsset]
    word: str


_KINDS = {
    "models": _Kind(RegisterModel, "model"),
    "environments": _Kind(RegisterEnvironment, "environment"),
    "codes": _Kind(RegisterCode, "code"),
    "data": _Kind(RegisterData, "data"),
}
_ASSETS = f"/v1/{{assets:{'|'.join(_KINDS)}}}"
_VERSIONS = _ASSETS + "/{name}/versions"
_VERSION = _VERSIONS + "/{version}"


class Assets:
    """Handlers over the table of assets; registering goes through a command."""

    def __init__(self, tables: Tables, commands: Commands):
        self._tables = tables
        self._commands = commands

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [
            web.get(_ASSETS, self.list_assets),
            web.get(_ASSETS + "/{name}", self.show_container),
            web.get(_VERSIONS, self.list_versions),
            web.get(_VERSION, self.show_version),
            web.put(_VERSION, self.register),
        ]

    async def list_assets(self, request: web.Request) -> web.Response:
        """Every version of every asset of the kind."""
        assets = sorted(self._of_kind(request), key=lambda asset: (asset.name, asset.registered_at))
        return web.json_response({"value": [views.asset(asset) for asset in assets]})

    async def show_container(self, request: web.Request) -> web.Response:
        """{"name", "latest_version", "next_version"}: the version that was registered last, and the integer after the
        largest one. A name that is not taken has no latest version."""
        versions = self._versions(request)
        integers = [int(asset.version) for asset in versions if asset.version.isdecimal()]
        return web.json_response(
            {
                "name": request.match_info["name"],
                "latest_version": versions[-1].version if versions else None,
                "next_version": str(max(integers, default=0) + 1),
            }
        )

    async def list_versions(self, request: web.Request) -> web.Response:
        """Oldest first."""
        return web.json_response({"value": [views.asset(asset) for asset in self._versions(request)]})

    async def show_version(self, request: web.Request) -> web.Response:
        """One version; `latest` is the one that was registered last."""
        name, version = request.match_info["name"], request.match_info["version"]
        versions = [asset for asset in self._versions(request) if version in ("latest", asset.version)]
        if not versions:
            word = _KINDS[request.match_info["assets"]].word
            raise missing(f"{word} '{name}'" + ("" if version == "latest" else f" of version '{version}'"))
        return web.json_response(views.asset(versions[-1]))

    async def register(self, request: web.Request) -> web.Response:
        kind = _KINDS[request.match_info["assets"]]
        name, version = request.match_info["name"], request.match_info["version"]
        if version == "latest":
            raise Refused(400, "BadArgument", "'latest' is no version of its own: it stands for the newest one")
        path = {"name": name, "version": version}
        command = requests.command(kind.command, path, requests.body_of(await body(request)))

        def visible(accepted: CommandAccepted) -> bool:
            return accepted.subject in self._tables.assets.entries

        await self._commands.apply(command, command_id(request), visible)
        return web.json_response(views.asset(self._tables.assets.entries[command.subject]), status=201)

    def _of_kind(self, request: web.Request) -> list[AssetRegistered]:
        word = _KINDS[request.match_info["assets"]].word
        return [asset for asset in self._tables.assets.entries.values() if asset.kind == word]

    def _versions(self, request: web.Request) -> list[AssetRegistered]:
        """Those of the name, oldest first."""
        named = [asset for asset in self._of_kind(request) if asset.name == request.match_info["name"]]
        return sorted(named, key=lambda asset: asset.registered_at)
