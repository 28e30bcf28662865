"""Runs a user's score.py for online requests and mini-batches.

Installed into the user's own environment, so it depends on the standard library alone. The parts:

| module | decides |
|---|---|
| `http` | which bytes are an HTTP/1.1 request (sans-IO) |
| `inputs` | what `run()` is called with |
| `replies` | which status, headers and body answer it |
| `script` | whether a script is one that can be served |
| `scoring` | which route a request takes and what its reply is |
| `workers` | which thread calls `run()`, in which order, and how a late one is stopped |
| `connection`, `server` | connections, readiness and draining (asyncio) |
| `compat` | which of Azure's modules a script can import |
| `batch`, `rows` | the mini-batch worker and the rows that it returns |
"""

__version__ = "0.1.0"
