"""python -m endpunkt_infra.stack [--home var] up | down | status | env | clean"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from contracts.shell.logs import configure_logs
from contracts.shell.tls import ca_path
from endpunkt_infra.stack.control import StackError, StackState, clean, down, up
from endpunkt_infra.stack.supervisor import Supervisor


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="endpunkt_infra.stack", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("var/endpunkt"), help="the folder of all state")
    parser.add_argument("command", choices=["up", "down", "status", "env", "clean", "supervise"])
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    try:
        match arguments.command:
            case "supervise":
                configure_logs("supervisor", "INFO")
                settings = {name: value for name, value in os.environ.items() if name.startswith("ENDPUNKT_")}
                return Supervisor(home, settings).run()
            case "up":
                _print_addresses(home, up(home, {}, _tell))
            case "down":
                down(home, _tell)
            case "clean":
                clean(home, _tell)
            case "env":
                _print_environment(home)
            case "status":
                state = StackState.read(home)
                running = state is not None and state.supervisor.alive
                _tell(state.state if state is not None and running else "not running")
                return 0 if running else 3
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _print_addresses(home: Path, addresses: dict[str, str]) -> None:
    for purpose, address in addresses.items():
        _tell(f"  {purpose:12} {address}")
    _tell(f"  {'trust':12} {ca_path(home)}")


def _print_environment(home: Path) -> None:
    """What a shell needs to use the Endpunkt under `home`, for eval."""
    state = StackState.read(home)
    if state is None or not state.supervisor.alive:
        raise StackError("Endpunkt is not running: start it with `make up`")
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": state.addresses["kafka"],
        "ENDPUNKT_HOME": str(home),
        "ENDPUNKT_STUDIO_URL": state.addresses["management"],
        "ENDPUNKT_SCORING_URL": state.addresses["scoring"],
        "ENDPUNKT_CA": str(ca_path(home)),
    }
    for name, value in variables.items():
        _tell(f"export {name}={shlex.quote(value)}")
    _tell(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
