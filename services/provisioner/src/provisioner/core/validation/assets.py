"""What is wrong with what is to be registered, and with files and folders wherever they are named.

PURE, see the package.
"""

from collections.abc import Iterator

from contracts.messages import Artifact, AssetRegistered, Problem, RegisterAsset, RegisterModel
from provisioner.core.sources import MLMODEL, sources_of
from provisioner.core.world import Fact, Source, World


def register(command: RegisterAsset, world: World) -> Iterator[Problem]:
    """Every reason not to register it. A version is never replaced; the same one again is none."""
    artifact = None
    for each in sources_of(command, world.assets):
        fact = world.facts.get(each)
        problems = tuple(source(each, fact))
        if not problems and fact is not None:
            artifact = fact.artifact
            if isinstance(command, RegisterModel) and command.type == "mlflow_model":
                problems = tuple(mlflow(each, fact))
            problems += tuple(troubles(each, fact))
        yield from problems
    registered = world.assets.get(command.subject)
    if registered is not None and (changed := _differences(command, artifact, registered)):
        message = (
            f"version {command.version} of '{command.name}' exists with another {', '.join(changed)}, and a version is "
            "never replaced: register a new one"
        )
        yield Problem(code="BadArgument", field="version", message=message)


def source(named: Source, fact: Fact | None) -> Iterator[Problem]:
    """Why the file or folder cannot be used at all."""
    if named.problem is not None:
        yield named.problem
        return
    assert fact is not None, "facts are gathered before a command is judged"
    if fact.problem is not None:
        yield Problem(code="BadArgument", field=named.field, message=fact.problem)
    elif named.must_be == "folder" and not fact.is_folder:
        message = f"'{named.path or named.name}' is a file: name the folder that holds it"
        yield Problem(code="BadArgument", field=named.field, message=message)
    elif named.must_be == "file" and fact.is_folder:
        message = f"'{named.path or named.name}' is a folder: name the file itself"
        yield Problem(code="BadArgument", field=named.field, message=message)


def mlflow(named: Source, fact: Fact) -> Iterator[Problem]:
    """Why it is no MLflow model."""
    if not fact.is_folder or MLMODEL not in fact.files:
        message = (
            f"'{named.path or named.name}' is no MLflow model, which is a folder with a file {MLMODEL}: name the "
            "folder that mlflow saved, or use type custom_model with a scoring script"
        )
        yield Problem(code="BadArgument", field=named.field, message=message)


def troubles(named: Source, fact: Fact) -> Iterator[Problem]:
    """What is wrong with the environment file, line by line; of an MLflow model's own file the name is told too."""
    file = fact.environment_file(named)
    for trouble in fact.troubles:
        message = f"{file} {trouble}" if file else trouble
        yield Problem(code="BadArgument", field=named.field, message=message)


def _differences(command: RegisterAsset, artifact: Artifact | None, registered: AssetRegistered) -> list[str]:
    """The fields in which a registered version is not what the command asks for. Content counts once it is known."""
    different = [
        name for name in ("type", "description", "tags") if getattr(command, name) != getattr(registered, name)
    ]
    return different if artifact is None or artifact == registered.artifact else ["content", *different]
