"""Which files say what an instance may use, where control groups are, what is hidden: tables."""

import os
import socket
from pathlib import Path

import pytest

from contracts.catalog import InstanceType
from contracts.messages import AssetReference, CodeConfiguration, OnlineDeploymentSpec
from provisioner.compute.cgroups import Cgroups, Group
from provisioner.compute.hiding import Hiding, hiding
from provisioner.compute.interpreter import command, prefixes
from provisioner.compute.limits import Limits, hierarchies, limits_of, numbers, v1_files, v2_files
from provisioner.compute.ports import Ports
from provisioner.compute.prepared import Prepared
from provisioner.compute.records import InstanceFolder
from provisioner.compute.users import Users
from provisioner.compute.variables import overruled, variables_of
from provisioner.core.failures import why_not_started
from provisioner.core.lifecycle import Place
from provisioner.core.told import created


@pytest.mark.parametrize(
    ("vcpus", "memory_gib", "cpus", "expected"),
    [
        (1, 3.5, 2, Limits(1, 3_758_096_384)),
        (8, 28, 2, Limits(2, 30_064_771_072)),
        (0.5, 0.5, 2, Limits(0.5, 536_870_912)),
    ],
)
def test_an_instance_is_granted_what_its_type_says_of_what_there_is(
    vcpus: float, memory_gib: float, cpus: int, expected: Limits
) -> None:
    kind = InstanceType(vcpus=vcpus, memory_gib=memory_gib, price_per_hour="1")
    assert limits_of(kind, cpus) == expected


def test_the_files_of_both_versions() -> None:
    limits = Limits(1.5, 1000, 64)
    assert v1_files(limits) == {
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"},
        "cpuacct": {},
        "memory": {"memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1000"},
        "pids": {"pids.max": "64"},
    }
    assert v2_files(limits) == {
        "cpu": {"cpu.max": "150000 100000"},
        "memory": {"memory.max": "1000", "memory.swap.max": "0", "memory.oom.group": "1"},
        "pids": {"pids.max": "64"},
    }
    assert v1_files(Limits(0.001, 1000))["cpu"]["cpu.cfs_quota_us"] == "1000", "the kernel takes no less"


def test_flat_keyed_files() -> None:
    assert numbers("low 0\noom 2\noom_kill 1\n") == {"low": 0, "oom": 2, "oom_kill": 1}


V2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "31 25 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_SYSTEMD = "32 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"


@pytest.mark.parametrize(
    ("own", "mounts", "expected"),
    [
        (
            "0::/system.slice/endpunkt.service\n",
            [V2],
            [(2, dict.fromkeys(("cpu", "memory", "pids"), "/sys/fs/cgroup/system.slice/endpunkt.service"))],
        ),
        ("0::/\n", [V2], [(2, dict.fromkeys(("cpu", "memory", "pids"), "/sys/fs/cgroup"))]),
        (
            "5:cpu,cpuacct:/mine\n4:memory:/docker/abc/deeper\n1:name=systemd:/\n",
            [V1_CPU, V1_MEMORY, V1_SYSTEMD],
            [
                (
                    1,
                    {
                        "cpu": "/sys/fs/cgroup/cpu,cpuacct/mine",
                        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/mine",
                        "memory": "/sys/fs/cgroup/memory/deeper",
                    },
                )
            ],
        ),
        ("4:memory:/elsewhere\n", [V1_MEMORY], [(1, {"memory": "/sys/fs/cgroup/memory"})]),
        ("", [V2, V1_CPU], []),
    ],
)
def test_where_this_process_stands_among_control_groups(
    own: str, mounts: list[str], expected: list[tuple[int, dict[str, str]]]
) -> None:
    found = hierarchies(own, "\n".join(mounts))
    assert [(each.version, each.folders) for each in found] == expected


def test_a_group_of_version_2_is_made_read_and_removed_by_its_files(tmp_path: Path) -> None:
    """On folders that stand for the kernel's: which files are written to, and what is read from which."""
    own, mountinfo = tmp_path / "own", tmp_path / "mountinfo"
    root = tmp_path / "cgroup"
    (root / "service").mkdir(parents=True)
    own.write_text("0::/service\n")
    mountinfo.write_text(f"29 22 0:26 / {root} rw - cgroup2 cgroup2 rw\n")
    groups = Cgroups.of(Path("/home/a"), own, mountinfo)
    assert (groups.version, groups.missing) == (2, [])
    group = groups.group("one")
    group.make(Limits(1, 4096, 8))
    folder = group.folders["memory"]
    assert folder.parent.parent == root / "service"
    assert (folder.parent / "cgroup.subtree_control").read_text().startswith("+")
    assert group.joins == [str(folder / "cgroup.procs")]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "cpu.max": "100000 100000",
        "memory.max": "4096",
        "pids.max": "8",
    }
    (folder / "cpu.stat").write_text("usage_usec 1500000\nnr_throttled 0\n")
    (folder / "memory.current").write_text("5000\n")
    (folder / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    (folder / "memory.events").write_text("oom 1\noom_kill 1\n")
    (folder / "memory.peak").write_text("6000\n")
    assert group.use() == (1.5, 4000)
    assert group.out_of_memory()
    assert group.peak_bytes() == 6000
    assert list(groups.instances()) == ["one"]
    assert Cgroups.of(Path("/home/b"), own, mountinfo).folders != groups.folders, "homes do not meet"


def test_where_nothing_is_mounted_nothing_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    groups = Cgroups.of(tmp_path, tmp_path / "empty", tmp_path / "empty")
    assert groups.missing == ["cpu", "cpuacct", "memory", "pids"]
    assert Group(1, {}).use() is None
    assert not Group(1, {}).out_of_memory()


HOME, WORK = Path("/var/endpunkt"), Path("/var/endpunkt/instances/a/work")
PYTHON = Path("/root/pythons/3.11")
FOLDER, OWN = "mode=755,size=1048576", "mode=1777,size=500"


@pytest.mark.parametrize(
    ("needed", "closed", "shared", "expected"),
    [
        # What is open needs nothing; the home is covered, and the instance's own comes back.
        ({Path("/usr"): False, WORK: True}, {HOME}, [], Hiding(((HOME, FOLDER),), ((WORK, True),))),
        # Below a closed folder only the interpreter comes back.
        (
            {PYTHON: False, WORK: True},
            {HOME, Path("/root")},
            [],
            Hiding(((Path("/root"), FOLDER), (HOME, FOLDER)), ((PYTHON, False), (WORK, True))),
        ),
        # A home within a folder that is covered anyway; what lies within something that comes back needs no more.
        (
            {Path("/tmp/h/env"): False, Path("/tmp/h/env/lib"): False, Path("/tmp/h/i/work"): True},
            {Path("/tmp/h")},
            [Path("/tmp")],
            Hiding(((Path("/tmp"), OWN),), ((Path("/tmp/h/env"), False), (Path("/tmp/h/i/work"), True))),
        ),
        # A covered folder never comes back as a whole.
        ({Path("/root"): False}, {Path("/root")}, [], Hiding(((Path("/root"), FOLDER),), ())),
    ],
)
def test_what_is_hidden_and_what_comes_back(
    needed: dict[Path, bool], closed: set[Path], shared: list[Path], expected: Hiding
) -> None:
    assert hiding(needed, closed, shared, 1000) == expected


@pytest.mark.parametrize(("version", "safe"), [("3.10.13", []), ("3.11.7", ["-P"]), ("3.9", []), ("3.13.0", ["-P"])])
def test_the_interpreter_of_an_environment(tmp_path: Path, version: str, safe: list[str]) -> None:
    base, alias = tmp_path / "python" / f"cpython-{version}", tmp_path / "python" / "cpython"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "python3").touch()
    alias.symlink_to(base)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(alias / "bin" / "python3")
    (venv / "pyvenv.cfg").write_text(f"home = {alias / 'bin'}\nversion_info = {version}\n")
    python = venv / "bin" / "python"
    assert set(prefixes(python)) == {venv, alias, base}
    assert command(python, 7) == [str(python), *safe, "-m", "inference_server", "--fd", "7"]


def test_a_port_is_of_the_range_and_not_one_of_the_last() -> None:
    ports, seen = Ports(28_990, 28_999), set[int]()
    for _ in range(5):
        with ports.bind("127.0.0.1") as bound:
            seen.add(bound.getsockname()[1])
    assert len(seen) == 5
    assert seen <= set(range(28_990, 29_000))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 28_980))
        with pytest.raises(OSError, match="no port from 28980 to 28980 is free"):
            Ports(28_980, 28_980).bind("127.0.0.1")


def test_a_user_has_one_instance_at_a_time() -> None:
    users = Users(range(65_000, 65_002))
    first, second = users.take(), users.take()
    assert {first, second} == {65_000, 65_001}
    with pytest.raises(OSError, match="every user from 65000 to 65001 has processes") as full:
        users.take()
    assert why_not_started(full.value.errno) == "PodUnschedulable"
    users.give_back(first)
    assert users.take() == first
    with pytest.raises(OSError, match="has processes"):
        Users(range(os.getuid(), os.getuid() + 1)).take()


def test_the_variables_of_an_mlflow_model_with_everything(tmp_path: Path) -> None:
    spec = OnlineDeploymentSpec(
        properties={"endpunkt.warmup_request": "sample.json", "endpunkt.protocol": "v2"},
        data_collector={"collections": {"request": {}}},
    )
    prepared = Prepared(Path("/env/bin/python"), Path("/run"), None, Path("/store/abc/model"))
    given = {"PYTHONPATH": "/mine", "HOME": "/elsewhere", "IDENTITY_HEADER": "x"}
    folder = InstanceFolder(tmp_path)
    made = variables_of(Place("shop", "blue", 1, 0), spec, 0.5, prepared, given, folder)
    assert made["ENDPUNKT_MLFLOW_MODEL"] == "/store/abc/model"
    assert made["AZUREML_MODEL_DIR"] == "/store/abc"
    assert made["ENDPUNKT_WARMUP_FILE"] == "/store/abc/model/sample.json"
    assert made["ENDPUNKT_PROTOCOL"] == "v2"
    assert made["ENDPUNKT_COLLECTOR_DIR"] == str(folder.collected)
    assert '"sampling_rate":1.0' in made["ENDPUNKT_COLLECTOR"]
    assert made["PYTHONPATH"] == "/run:/mine"
    assert made["HOME"] == str(folder.work)
    assert made["OMP_NUM_THREADS"] == "1"
    assert made["IDENTITY_HEADER"] == "x"
    assert "AML_APP_ROOT" not in made
    code = OnlineDeploymentSpec(
        code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"),
        properties={"endpunkt.warmup_request": "sample.json"},
    )
    with_code = Prepared(Path("/env/bin/python"), Path("/run"), Path("/store/def/src"), Path("/store/abc/model"))
    made = variables_of(Place("shop", "blue", 1, 0), code, 1, with_code, {}, folder)
    assert made["ENDPUNKT_WARMUP_FILE"] == "/store/def/src/sample.json"
    assert "ENDPUNKT_MLFLOW_MODEL" not in made


PLATFORMS = {"AML_APP_ROOT": "/a", "AZUREML_ENTRY_SCRIPT": "other.py", "AZUREML_MODEL_DIR": "/m", "HOME": "/h"}


@pytest.mark.parametrize(
    ("timeout", "made", "overrules"),
    [("1000", "1000", False), ("5000", "5000", False), ("3600000", "5000", True), (None, "5000", False)],
)
def test_what_the_platform_sets_wins_over_the_file_and_is_told(
    tmp_path: Path, timeout: str | None, made: str, overrules: bool
) -> None:
    given = PLATFORMS | ({"SCORING_TIMEOUT_MS": timeout} if timeout is not None else {})
    spec = OnlineDeploymentSpec(
        code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"),
        model=AssetReference(path="/model"),
        environment_variables=given,
    )
    prepared = Prepared(Path("/env/bin/python"), Path("/run"), Path("/store/def/src"), Path("/store/abc/model"))
    folder = InstanceFolder(tmp_path)
    has = variables_of(Place("shop", "blue", 1, 0), spec, 1, prepared, given, folder)
    assert {name: has[name] for name in PLATFORMS} == {
        "AML_APP_ROOT": "/store/def/src",
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_MODEL_DIR": "/store/abc",
        "HOME": str(folder.work),
    }
    assert has["SCORING_TIMEOUT_MS"] == made
    assert overruled(spec) == sorted([*PLATFORMS, *(["SCORING_TIMEOUT_MS"] if overrules else [])])
    assert overruled(spec) == sorted(name for name in given if has[name] != given[name])


def test_a_variable_that_the_platform_does_not_need_is_the_deployments() -> None:
    spec = OnlineDeploymentSpec(model=AssetReference(path="/model"), environment_variables=PLATFORMS)
    assert overruled(spec) == ["AZUREML_MODEL_DIR", "HOME"]


@pytest.mark.parametrize(
    ("lacks", "overrules", "says"),
    [
        ([], [], "an instance of Standard_DS1_v2 at a:1"),
        (["its CPU is not bounded", "x"], [], "; not enforced on this machine: its CPU is not bounded, x"),
        ([], ["HOME"], "; set by Endpunkt and not as the deployment says: HOME"),
    ],
)
def test_an_instance_is_told_with_what_its_type_and_file_promise_in_vain(
    lacks: list[str], overrules: list[str], says: str
) -> None:
    assert created("Standard_DS1_v2", "a:1", lacks, overrules).endswith(says)
