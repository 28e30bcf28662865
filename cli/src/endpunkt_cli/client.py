"""HTTPS to the management API and to scoring URIs. Every failure is one clear error with its next step."""

import http.client
import io
import json
import socket
import ssl
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from endpunkt_cli.errors import CliError

_PIECE = 1 << 17


class Answer(NamedTuple):
    """A response, whole."""

    status: int
    body: bytes


class ApiError(CliError):
    """The studio refused a request. `details` has each problem: {"code", "target", "message"}."""

    def __init__(self, status: int, code: str, message: str, details: list[dict[str, str]]):
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.details = details


class Unreachable(CliError):
    """There was no whole answer: sending the request again may help."""


class Origin:
    """One server, over one connection that is kept. A path's query and fragment are the caller's."""

    def __init__(self, url: str, context: ssl.SSLContext, ca: Path, timeout: float):
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise CliError(f"'{url}' is no https address: tokens and keys are sent over TLS only")
        self.url = f"https://{parts.netloc}"
        self.path = parts.path.rstrip("/")
        self._ca = ca
        self._connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout, context=context, blocksize=_PIECE
        )

    def request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Send and read the answer. What is sent must be safe to send twice: a kept connection may have been closed."""
        reused = self._connection.sock is not None
        try:
            return self._once(method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self._connection.close()
            if not reused:
                raise Unreachable(f"{self.url} closed the connection without an answer: see its log") from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(self._told(error)) from None
        return self.request(method, path, body, headers)

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        # A file is sent in pieces, and the timeout holds for each of them.
        content = io.BytesIO(body) if body is not None else None
        length = {"Content-Length": str(len(body))} if body is not None else {}
        self._connection.request(method, path, content, {**headers, **length})
        response = self._connection.getresponse()
        return Answer(response.status, response.read())

    def _told(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self.url} is not trusted by {self._ca}: {error.verify_message}. "
                "Set ENDPUNKT_HOME to the home of the Endpunkt that runs there, or ENDPUNKT_CA to its tls/ca.pem."
            )
        if isinstance(error, ConnectionRefusedError):
            return (
                f"nothing listens at {self.url}. Start Endpunkt (make up), "
                "or give its address with --url or ENDPUNKT_STUDIO_URL."
            )
        if isinstance(error, socket.gaierror):
            return f"there is no host named in {self.url}: give the address with --url or ENDPUNKT_STUDIO_URL."
        if isinstance(error, TimeoutError):
            return f"{self.url} did not answer within {self._connection.timeout:.0f} s: see its log."
        return f"{self.url} cannot be used: {error or type(error).__name__}. Is it the right address?"


class Studio:
    """The management API."""

    def __init__(self, origin: Origin, token: str, token_source: str):
        self._origin = origin
        self._token = token
        self._token_source = token_source

    def get(self, *path: str, query: str = "") -> Any:
        """Read a document; `path` are the segments after /v1."""
        return self.send("GET", *path, query=query)

    def send(
        self,
        method: str,
        *path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Any:
        """Send `body` (bytes as they are, anything else as JSON) and return the answer's document; None when it is
        empty. Raises ApiError."""
        target = "/v1/" + "/".join(quote(segment, safe="") for segment in path) + query
        raw = isinstance(body, bytes)
        answer = self._origin.request(
            method,
            target,
            body if raw or body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/octet-stream" if raw else "application/json",
                "x-ms-client-request-id": uuid.uuid4().hex,
                **(headers or {}),
            },
        )
        if answer.status == 401:
            raise CliError(
                f"{self._origin.url} does not take the token from {self._token_source}. "
                "Set ENDPUNKT_HOME to the home of the Endpunkt that runs there, or ENDPUNKT_TOKEN to its token."
            )
        try:
            document: Any = json.loads(answer.body) if answer.body else None
            if answer.status < 400:
                return document
            error = document["error"]
            raise ApiError(answer.status, error["code"], error["message"], error["details"])
        except (ValueError, KeyError, TypeError):
            raise CliError(
                f"{self._origin.url} answered {answer.status} with what is no document of Endpunkt: "
                "give the address of its studio with --url or ENDPUNKT_STUDIO_URL."
            ) from None
