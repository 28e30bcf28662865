"""The routes by which people who are not on this machine bring files: what is missing, chunk by chunk, then the tree.

An upload that breaks off goes on by asking again what is missing. What is kept is only ever added to.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from contracts.artifacts import artifact_uri
from contracts.artifacts.store import ArtifactError, ArtifactStore
from contracts.artifacts.tree import CHUNK, LARGEST_MANIFEST, BadTree, read_tree
from contracts.messages import Artifact, Problem
from studio import requests
from studio.replies import Refused, rejection
from studio.server import body

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_DIGESTS = 10_000
_AT_ONCE = 2
"""Blobs are held in memory while they come."""


class Uploads:
    """Handlers over the artifact store; artifacts have at most `largest` bytes, and a client that is silent for
    `idle_seconds` is dropped."""

    def __init__(self, store: ArtifactStore, largest: int, idle_seconds: float):
        self._store = store
        self._largest = largest
        self._idle_seconds = idle_seconds
        self._room = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [
            web.post("/v1/artifacts/missing", self.list_missing),
            web.put("/v1/artifacts/blobs/{digest}", self.put_blob),
            web.put("/v1/artifacts/trees", self.put_tree),
        ]

    async def list_missing(self, request: web.Request) -> web.Response:
        """{"digests": [of chunks], "size": bytes of the whole artifact, which may be left out} -> {"missing": […]}."""
        asked = requests.body_of(await body(request))
        digests, size = asked.get("digests"), asked.get("size", 0)
        problems = [_problem(name, "unknown field") for name in asked if name not in ("digests", "size")]
        if not isinstance(digests, list) or len(digests) > _MOST_DIGESTS or not all(map(_is_digest, digests)):
            problems.append(_problem("digests", f"must be a list of at most {_MOST_DIGESTS} SHA-256 in hexadecimal"))
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            problems.append(_problem("size", "must be a number of bytes"))
        elif size > self._largest:
            limit = f"{self._largest / 2**30:g} GiB that an artifact may have (ENDPUNKT_ARTIFACT_GIB)"
            problems.append(_problem("size", f"{size} bytes are more than the {limit}"))
        if problems:
            raise rejection(problems)
        assert isinstance(digests, list)
        return web.json_response({"missing": await _kept(lambda: self._store.missing(digests))})

    async def put_blob(self, request: web.Request) -> web.Response:
        """A chunk: 201 when it is new, 200 when it was there."""
        digest = request.match_info["digest"]
        if not _is_digest(digest):
            raise rejection([_problem("digest", "must be the SHA-256 of the body in hexadecimal")])
        async with self._room:
            data, actual = await self._received(request, CHUNK)
            if actual != digest:
                reason = f"what came ({len(data)} bytes) has the SHA-256 {actual}: it was changed or cut on its way"
                raise rejection([_problem("digest", f"{reason}; send it again")])
            new = await _kept(lambda: self._store.put_blob(digest, data))
        return web.json_response({"digest": digest, "size": len(data)}, status=201 if new else 200)

    async def put_tree(self, request: web.Request) -> web.Response:
        """The manifest of chunks that are there: 201 with the artifact's URI, which specifications take as a path."""
        raw, _ = await self._received(request, LARGEST_MANIFEST)

        def keep() -> Artifact:
            return self._store.put_tree(read_tree(raw))

        try:
            artifact = await _kept(keep)
        except BadTree as error:
            raise rejection([_problem("entries", trouble) for trouble in error.troubles]) from None
        return web.json_response({"uri": artifact_uri(artifact), **artifact.model_dump()}, status=201)

    async def _received(self, request: web.Request, largest: int) -> tuple[bytearray, str]:
        """The body and its SHA-256. Raises Refused when it is too large, or comes too slowly."""
        data, digest = bytearray(), hashlib.sha256()
        pieces = request.content.iter_any()
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    piece = await anext(pieces, None)
            except TimeoutError:
                message = f"nothing came for {self._idle_seconds:g} s: send it again"
                raise Refused(408, "RequestTimeout", message) from None
            if piece is None:
                return data, digest.hexdigest()
            if len(data) + len(piece) > largest:
                raise Refused(413, "RequestEntityTooLarge", f"a body may have {largest} bytes here")
            data += piece
            digest.update(piece)


async def _kept(work: Callable[[], T]) -> T:
    """What the store does, in a thread. Raises Refused when it fails."""
    try:
        return await asyncio.to_thread(work)
    except ArtifactError as error:
        raise Refused(503, "StorageError", str(error)) from None


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _problem(field: str, message: str) -> Problem:
    return Problem(code="BadArgument", field=field, message=message)
