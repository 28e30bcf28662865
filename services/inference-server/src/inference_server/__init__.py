"""Runs a user's score.py for online requests and mini-batches.

Installed into the user's own environment, so it depends on the standard library alone. The parts:

| module | decides |
|---|---|
| `http` | which bytes are an HTTP/1.1 request (sans-IO) |
| `inputs` | what `run()` is called with |
| `replies` | which status, headers and body answer it |
| `models`, `script`, `mlflow_model` | what is served, and whether it can be |
| `routes`, `scoring` | which route a request takes and what its reply is |
| `v2`, `tensors` | the Open Inference Protocol v2 |
| `swagger`, `signature` | how `/swagger.json` describes the model |
| `warm_up` | whether a sample request lets the server get ready |
| `config_file`, `settings` | what the environment asks for |
| `collection`, `collected_files`, `collector`, `monitoring` | the data collector |
| `debug` | where a debugger attaches |
| `workers` | which thread calls `run()`, in which order, and how a late one is stopped |
| `connection`, `server` | connections, readiness and draining |
| `loop`, `relay` | which thread turns the loop of sockets |
| `processes`, `deaths`, `seats` | several worker processes, when one is replaced, and which takes a connection |
| `start_limit` | when a start has taken too long |
| `compat` | which of Azure's modules a script can import |
| `batch`, `rows` | the mini-batch worker and the rows that it returns |
"""

from __future__ import annotations

__version__ = "0.1.0"
