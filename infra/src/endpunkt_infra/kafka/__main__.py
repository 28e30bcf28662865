"""`python -m endpunkt_infra.kafka start|stop|status|install|verify`. See --help."""

import argparse
import logging
import os
import sys
from pathlib import Path

from endpunkt_infra.kafka import KafkaUnavailableError, address, jars
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.kafka.ports import HOST


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done; 1 there is no Kafka, told on stderr; 3 (status) the embedded Kafka does not run."""
    parser = argparse.ArgumentParser(prog="python -m endpunkt_infra.kafka", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser(
        "start", help=f"print a bootstrap address: the one in {address.VARIABLE}, else of an embedded Kafka"
    )
    start.add_argument("--port", type=int, default=0, help="default: that of the last start, else a free one")
    stop = commands.add_parser("stop", help="stop the embedded Kafka; its data stays")
    status = commands.add_parser("status", help="say which Kafka is in use, and whether it answers")
    for command in (start, stop, status):
        command.add_argument("--data-dir", type=Path, default=Path("var/kafka"), help="default: var/kafka")
    commands.add_parser("install", help="only fetch the jars")
    commands.add_parser("verify", help="hash the installed jars again")
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        return run(options)
    except (KafkaUnavailableError, OSError) as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(options: argparse.Namespace) -> int:
    if options.command == "install":
        jars.install()
        return 0
    if options.command == "verify":
        jars.verify(jars.install())
        return 0
    broker = Broker(options.data_dir, getattr(options, "port", 0))
    if options.command == "stop":
        print("stopped" if broker.stop() else "was not running", file=sys.stderr)
        return 0
    if cluster := address.external(os.environ):
        print(cluster.bootstrap_servers)
        return 0
    if options.command == "start":
        print(broker.start())
        return 0
    running = broker.running
    print(f"{HOST}:{running.port} (pid {running.process.pid})" if running else "not running")
    return 0 if running else 3


if __name__ == "__main__":
    sys.exit(main())
