"""From a published command to the enforced split: `make bench-control`.

Everything runs as `make up` starts it, with a broker of one node. A command turns all traffic from blue to green, or
back; the clock starts before it is handed to the producer and stops when the first answer by the other deployment has
arrived. Requests follow one another on one connection, so that an answer's way (a few milliseconds) is counted too.
"""

import asyncio
import itertools
import ssl
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from house import running_house
from results import write_results
from rich.console import Console

from contracts.log import KafkaSettings, Publisher
from contracts.messages import UpdateEndpoint
from contracts.shell.tls import ca_path
from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Client
from endpunkt_infra.demo.story import Story

WARM_ROUNDS = 20
ROUNDS = 300
PAUSES_MS = (0, 7, 23, 61, 110)
"""Between rounds, so that no round keeps step with what the services do at even times."""
TARGETS = {"enforce_p99_ms": {"max": 50}}


@dataclass
class Scoring:
    """One connection to the endpoint."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes

    async def deployment(self) -> str:
        """Ask once; who answered. Raises SystemExit when the answer is not 200."""
        self.writer.write(self.request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await self.reader.readexactly(int(lines["content-length"]))
        if " 200 " not in head.partition("\r\n")[0]:
            raise SystemExit(f"a request was answered with {head}{body.decode()}")
        return lines["azureml-model-deployment"]


async def connect(home: Path, url: str, key: str, body: bytes) -> Scoring:
    """A connection to endpoint diabetes at the scoring URL."""
    place = urlsplit(url)
    trust = ssl.create_default_context(cafile=ca_path(home))
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=trust)
    head = (
        f"POST /diabetes/score HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Scoring(reader, writer, head.encode() + body)


async def enforce(scoring: Scoring, publisher: Publisher, target: str) -> float:
    """Turn all traffic to `target`; seconds until it answers."""
    other = {"blue": "green", "green": "blue"}[target]
    began = time.perf_counter()
    publishing = asyncio.create_task(
        publisher.publish(UpdateEndpoint(endpoint="diabetes", traffic={target: 100, other: 0}))
    )
    while await scoring.deployment() != target:
        pass
    took = time.perf_counter() - began
    await publishing
    if (by := await scoring.deployment()) != target:
        raise SystemExit(f"after an answer by {target} came one by {by}")
    return took


async def measure(story: Story, home: Path, work: Path, addresses: dict[str, str]) -> list[float]:
    """Seconds of each round."""
    async with Client(home, work, addresses) as client:
        body = steps.prepare(story, work)
        await steps.register(story, client)
        key = await steps.deploy(story, client)
        await client.command("online-endpoint", "update", "--name", "diabetes", "--traffic", "blue=100 green=0")
    publisher = Publisher(KafkaSettings(addresses["kafka"]), "bench")
    await publisher.start()
    scoring = await connect(home, addresses["scoring"], key, body)
    took = []
    targets, pauses = itertools.cycle(("green", "blue")), itertools.cycle(PAUSES_MS)
    for number in range(WARM_ROUNDS + ROUNDS):
        seconds = await enforce(scoring, publisher, next(targets))
        if number >= WARM_ROUNDS:
            took.append(seconds)
        await asyncio.sleep(next(pauses) / 1000)
    await publisher.stop()
    scoring.writer.close()
    return took


def main() -> int:
    """Measure, print, write bench/results/control.json; 1 when the target is missed."""
    story = Story(Console(), steps=1)
    with running_house(story) as place:
        took = asyncio.run(measure(story, *place))
    cuts = statistics.quantiles([seconds * 1000 for seconds in took], n=100, method="inclusive")
    figures = {
        "rounds": len(took),
        "enforce_p50_ms": round(cuts[49], 1),
        "enforce_p99_ms": round(cuts[98], 1),
        "enforce_max_ms": round(max(took) * 1000, 1),
    }
    return 0 if write_results("control", ratios={}, figures=figures, targets=TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
