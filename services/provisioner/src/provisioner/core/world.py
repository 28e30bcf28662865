"""What a decision about a command looks at: the documents as they are, and facts that the shell gathered.

PURE, see the package.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Literal

from contracts.catalog import Catalog
from contracts.messages import Artifact, AssetRegistered, EndpointCommand, EndpointDesired, Problem, RegisterAsset

Command = EndpointCommand | RegisterAsset


@dataclass(frozen=True, slots=True)
class Quotas:
    """Azure's default limits of a subscription (its page "Manage resources and quotas"), and how many times over the
    machine's cores and memory may be promised to online deployments."""

    endpoints: int = 100
    deployments: int = 500
    deployments_per_endpoint: int = 20
    instances_per_deployment: int = 50
    overcommit_cpu: float = 8.0
    overcommit_memory: float = 4.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What the instances share."""

    cores: float
    memory_gib: float


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder that a command names in `field`: at the absolute `path` of the disk, or as an `artifact` that
    is stored already; or neither, and `problem` says why.

    `wants` are files (relative to the folder) that are looked for, `reads` environment files whose text is needed, the
    best first; "" is the file itself.
    """

    field: str
    path: str = ""
    artifact: Artifact | None = None
    problem: Problem | None = None
    must_be: Literal["file", "folder"] | None = None
    wants: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return self.artifact.name if self.artifact is not None else self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Fact:
    """What the disk, or the store, says about a Source: why it cannot be used, or what it is.

    `files` are those of its `wants` that are there, `texts` those of its `reads` that are (a file that is no text or
    too long for an environment is a `problem`). `troubles` is what is wrong with the first of `texts` as an environment
    of this machine, a line of text each. `artifact` is set once it is stored.
    """

    problem: str | None = None
    is_folder: bool = False
    files: frozenset[str] = frozenset()
    texts: Mapping[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()
    artifact: Artifact | None = None

    def environment_file(self, source: Source) -> str | None:
        """Which of the source's environment files counts: the first that is there."""
        return next((name for name in source.reads if name in self.texts), None)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a command is judged by.

    `assets` are by key (`model:name:version`), `facts` by Source. `deleting` holds the endpoints that still have
    instances or an observed state although they are no longer desired; `deleted` tells which command deleted an
    endpoint, as its tombstone says.
    """

    endpoints: Mapping[str, EndpointDesired]
    assets: Mapping[str, AssetRegistered]
    catalog: Catalog
    machine: Machine
    quotas: Quotas = Quotas()
    deleting: Container[str] = ()
    deleted: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[Source, Fact] = field(default_factory=dict)
