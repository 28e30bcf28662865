"""Which Python is taken, what uv is told, what its failures say to a person, and the lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.environments.failures import readable
from contracts.environments.lines import Requirement
from contracts.environments.lock import held, releases
from contracts.environments.pythons import Interpreter, chosen, missing, open_to_all, search_path
from contracts.environments.runtime import install
from contracts.environments.specification import Specification
from contracts.environments.tool import uv_environment

HERE = [
    Interpreter("3.7.16", "/p/3.7"),
    Interpreter("3.9.18", "/p/3.9"),
    Interpreter("3.10.13", "/p/3.10"),
    Interpreter("3.11.2", "/p/3.11.2"),
    Interpreter("3.11.7", "/root/3.11.7", open=False),
    Interpreter("3.12.1", "/p/3.12"),
    Interpreter("3.13.0", "/root/3.13", open=False),
]


@pytest.mark.parametrize(
    ("specifier", "path"),
    [
        (None, "/p/3.11.2"),
        ("==3.10.*", "/p/3.10"),
        ("==3.10", "/p/3.10"),
        ("==3.10.4.*", "/p/3.10"),
        ("==3.10.4", "/p/3.10"),
        ("==3.11.7.*", "/root/3.11.7"),
        ("==3.11.*", "/p/3.11.2"),
        ("==3.13.*", "/root/3.13"),
        ("<3.12,>=3.9", "/p/3.11.2"),
        ("<3.11,>=3.8", "/p/3.10"),
        (">=3.12", "/p/3.12"),
        ("==3.*", "/p/3.11.2"),
        ("==3.14.*", None),
        ("==3.7.*", None),
        ("<3.9", None),
        (">=3.10.14,<3.11", None),
    ],
)
def test_the_python_of_a_file(specifier: str | None, path: str | None) -> None:
    found = chosen(specifier, HERE, "3.11")
    assert (found and found.path) == path


@pytest.mark.parametrize(
    ("specifier", "words"),
    [
        ("==3.14.*", "Python 3.14 is not on this machine, which has 3.9, 3.10, 3.11, 3.12, 3.13: install it"),
        (">=3.14", "Python >=3.14 is not on this machine"),
        ("==3.7.*", "Python 3.7 is too old: the server needs 3.9 or newer"),
        ("==3.6.9.*", "Python 3.6.9 is too old"),
        ("==2.7.*", "Python 2.7 is too old"),
        ("<3.9", "Python <3.9 is too old"),
        (None, "Python 3.11, the services' own, is not on this machine"),
    ],
)
def test_a_python_that_is_not_there_is_told_with_those_that_are(specifier: str | None, words: str) -> None:
    assert missing(specifier, HERE, "3.11").startswith(words)


def test_the_interpreters_behind_pyenvs_switches_are_found(tmp_path: Path) -> None:
    for folder in ("shims", "versions/3.10.13/bin", "versions/3.12.1/bin", "versions/2.7.18/bin"):
        (tmp_path / folder).mkdir(parents=True)
    found = search_path({"PATH": f"/usr/bin:{tmp_path}/shims:/usr/bin::/bin"})
    assert found.split(":") == [
        "/usr/bin",
        f"{tmp_path}/versions/3.10.13/bin",
        f"{tmp_path}/versions/3.12.1/bin",
        "/bin",
    ]


def test_a_folder_that_this_user_may_not_look_into_is_searched_as_it_is(tmp_path: Path) -> None:
    """Somebody else's pyenv on the PATH. Root may look anywhere, so what asks is nobody."""
    (tmp_path / "shims").mkdir()
    tmp_path.chmod(0)
    ask = (
        "import os, sys; from contracts.environments.pythons import search_path; "
        "os.geteuid() or os.setuid(65534); print(search_path({'PATH': sys.argv[1]}))"
    )
    path = f"{tmp_path}/shims:/bin"
    try:
        told = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, text=True, check=True)
    finally:
        tmp_path.chmod(0o700)
    assert told.stdout == f"{path}\n"


def test_a_program_in_a_private_folder_is_not_open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert open_to_all("/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "private").mkdir(mode=0o700)
    program = tmp_path / "private" / "python"
    program.touch(mode=0o755)
    assert not open_to_all(str(program))
    assert open_to_all("/bin/sh")


def test_uv_is_told_how_to_reach_the_network_and_no_secret() -> None:
    outer = {
        "PATH": "/bin",
        "HOME": "/h",
        "UV_DEFAULT_INDEX": "https://index.example.org/simple",
        "https_proxy": "http://proxy",
        "SSL_CERT_FILE": "/ca",
        "KAFKA_SASL_PASSWORD": "secret",
        "ENDPUNKT_ADMIN_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/y",
    }
    told = uv_environment(outer, Path("/cache"))
    assert told == {
        **{name: outer[name] for name in ("PATH", "HOME", "UV_DEFAULT_INDEX", "https_proxy", "SSL_CERT_FILE")},
        "UV_CACHE_DIR": "/cache",
        "UV_PYTHON_DOWNLOADS": "never",
    }


ASKED = Specification(
    (
        Requirement(4, "six", "six==99"),
        Requirement(5, "numpy", "numpy==1.26.4"),
        Requirement(7, "numpy-financial", "numpy-financial"),
    )
)
NO_SOLUTION = "error: No solution found when resolving dependencies"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            [
                NO_SOLUTION,
                "  cause: Because there is no version of six==99 and you require six==99, we can conclude that your "
                "requirements are unsatisfiable.",
            ],
            "Because there is no version of six==99 and you require six==99, we can conclude that your requirements "
            "are unsatisfiable (line 4 asks for six==99). Next: choose a version that exists",
        ),
        (
            [
                "warning: something",
                NO_SOLUTION,
                "  cause: Because numpy==1.26.4 has no usable wheels and only the following versions are available:",
                "             numpy<1.26.4.dev0",
                "         we can conclude that they are unsatisfiable.",
                "",
                "hint: Wheels are required for `numpy` because building from source is disabled for all packages "
                "(i.e., with `--no-build`)",
            ],
            "Because numpy==1.26.4 has no usable wheels and only the following versions are available: "
            "numpy<1.26.4.dev0 we can conclude that they are unsatisfiable (line 5 asks for numpy==1.26.4). Next: only "
            "built packages (wheels) are installed, since a build runs its author's code with this service's rights: "
            "choose a version that has a wheel for this Python, or allow builds with ENDPUNKT_ENVIRONMENT_BUILDS=true",
        ),
        (
            [NO_SOLUTION, "  cause: Because numpy-financial was not found in the package registry"],
            "Because numpy-financial was not found in the package registry (line 7 asks for numpy-financial). Next: "
            "check the name's spelling, or name the index that has it with --extra-index-url",
        ),
        (
            [
                "error: Request failed after 3 retries in 6.6s",
                "  cause: Failed to fetch: http://127.0.0.1:9/simple/six/",
                "  cause: Connection refused (os error 111)",
            ],
            "Request failed after 3 retries in 6.6s; Failed to fetch: http://127.0.0.1:9/simple/six/; Connection "
            "refused (os error 111) (line 4 asks for six==99). Next: the package index cannot be reached from this "
            "machine: try again, or set UV_DEFAULT_INDEX to one that can",
        ),
        (
            [
                "error: Failed to download `six==99`",
                "  cause: Hash mismatch for `six==99`",
                "",
                "Expected:",
                "  sha256:00",
            ],
            "Failed to download `six==99`; Hash mismatch for `six==99` Expected: sha256:00 (line 4 asks for six==99). "
            "Next: the index serves another file than the one whose --hash the file gives: check both",
        ),
        ([], "uv did not say why. Next: loosen or change one of these versions"),
    ],
)
def test_a_failure_says_which_line_why_and_what_next(said: list[str], expected: str) -> None:
    assert readable(said, ASKED) == expected


LOCK = """\
numpy==1.26.4 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
six==1.16.0 \\
    --hash=sha256:cc
x @ https://example.org/x.whl \\
    --hash=sha256:dd
plain==1.0
"""


def test_a_lock_names_the_releases() -> None:
    assert releases(LOCK) == ["numpy==1.26.4", "six==1.16.0", "x @ https://example.org/x.whl", "plain==1.0"]


def test_digests_that_a_person_gave_replace_those_that_the_index_told() -> None:
    assert held(LOCK, []) == LOCK
    given = [Requirement(1, "numpy", "numpy", ("sha256:11", "sha256:22")), Requirement(2, "x", "x @ …", ("sha256:33",))]
    assert held(LOCK, given) == LOCK.replace("sha256:aa", "sha256:11").replace("sha256:bb", "sha256:22").replace(
        "sha256:dd", "sha256:33"
    )


def test_the_runtime_is_installed_once_whole_and_readable_by_everybody(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = install(tmp_path)
    finally:
        os.umask(old)
    assert install(tmp_path) == folder
    assert [path.name for path in folder.iterdir()] == ["inference_server"]
    assert (folder / "inference_server" / "__main__.py").exists()
    assert list((folder / "inference_server" / "__pycache__").glob("__main__.*.pyc"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for path in (folder.parent, folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
