"""A small client of the Debug Adapter Protocol, to attach to debugpy as an editor does.

Messages are JSON after a `Content-Length` header (microsoft.github.io/debug-adapter-protocol, "Base Protocol").
Everything waits with a deadline and raises DapError.

    with DebugAdapter(port) as debugger:
        debugger.attach({score_py: [4]})                  # breakpoints by file
        stopped = debugger.wait_for("stopped")            # while somebody sends a request
        assert debugger.variables(stopped)["data"] == "'hello'"
        debugger.resume(stopped)
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Message = dict[str, Any]


class DapError(AssertionError):
    """The adapter refused a request, or did not say in time what was waited for."""


class DebugAdapter:
    def __init__(self, port: int, host: str = "127.0.0.1", seconds: float = 30.0):
        """Connects as soon as the port is open."""
        self._seconds = seconds
        self._socket = self._connect(host, port)
        self._reader = self._socket.makefile("rb")
        self._sequence = 0
        self._events: list[Message] = []
        self._answers: dict[int, Message] = {}

    def _connect(self, host: str, port: int) -> socket.socket:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return socket.create_connection((host, port), self._seconds)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise DapError(f"nobody listens on {host}:{port}") from None
                time.sleep(0.05)

    def __enter__(self) -> DebugAdapter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._socket.close()

    # -- messages

    def send(self, command: str, arguments: Mapping[str, Any] | None = None) -> int:
        """Sends a request; gives its number, for `answer`."""
        self._sequence += 1
        message = {"seq": self._sequence, "type": "request", "command": command, "arguments": arguments or {}}
        body = json.dumps(message).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self._sequence

    def answer(self, number: int) -> Message:
        """The body of the answer to a request."""
        while number not in self._answers:
            self._read()
        answer = self._answers.pop(number)
        if not answer["success"]:
            raise DapError(f"{answer['command']}: {answer.get('message')}")
        body: Message = answer.get("body") or {}
        return body

    def request(self, command: str, arguments: Mapping[str, Any] | None = None) -> Message:
        return self.answer(self.send(command, arguments))

    def wait_for(self, event: str) -> Message:
        """The body of the next event of that name that has not been taken yet."""
        while True:
            for message in self._events:
                if message["event"] == event:
                    self._events.remove(message)
                    body: Message = message.get("body") or {}
                    return body
            self._read()

    def _read(self) -> None:
        try:
            length = 0
            while (line := self._reader.readline()) != b"\r\n":
                if not line:
                    raise DapError("the adapter hung up")
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            message: Message = json.loads(self._reader.read(length))
        except TimeoutError:
            raise DapError(f"the adapter said nothing for {self._seconds:g} s") from None
        if message["type"] == "event":
            self._events.append(message)
        elif message["type"] == "response":
            self._answers[message["request_seq"]] = message

    # -- what an editor does

    def attach(
        self, breakpoints: Mapping[Path, Sequence[int]], path_mappings: Mapping[str, str] | None = None
    ) -> dict[Path, list[bool]]:
        """Attaches and sets the breakpoints; tells for each whether the adapter has verified it. `path_mappings`:
        local to remote folders."""
        self.request("initialize", {"clientID": "test", "adapterID": "python", "pathFormat": "path"})
        mappings = [{"localRoot": local, "remoteRoot": remote} for local, remote in (path_mappings or {}).items()]
        attached = self.send("attach", {"justMyCode": False, "pathMappings": mappings})
        self.wait_for("initialized")
        verified = {}
        for path, lines in breakpoints.items():
            asked = {"source": {"path": str(path)}, "breakpoints": [{"line": line} for line in lines]}
            found = self.request("setBreakpoints", asked)["breakpoints"]
            verified[path] = [bool(breakpoint["verified"]) for breakpoint in found]
        self.request("configurationDone")
        self.answer(attached)
        return verified

    def frame(self, stopped: Message) -> Message:
        """The innermost frame of a stopped thread: `id`, `name`, `line`, `source`."""
        frame: Message = self.request("stackTrace", {"threadId": stopped["threadId"]})["stackFrames"][0]
        return frame

    def variables(self, stopped: Message) -> dict[str, str]:
        """The local variables of the innermost frame, as the adapter prints them."""
        scopes = self.request("scopes", {"frameId": self.frame(stopped)["id"]})["scopes"]
        found = self.request("variables", {"variablesReference": scopes[0]["variablesReference"]})["variables"]
        return {variable["name"]: variable["value"] for variable in found}

    def resume(self, stopped: Message) -> None:
        self.request("continue", {"threadId": stopped["threadId"]})

    def disconnect(self) -> None:
        """Detaches; the process goes on."""
        self.request("disconnect", {"terminateDebuggee": False})
