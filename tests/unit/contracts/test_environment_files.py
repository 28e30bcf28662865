"""Environment files as people have them: what is taken, what is refused in which words, and what a digest means."""

from textwrap import dedent

import pytest

from contracts.environments.names import NO_TWIN, PART_OF_PYTHON, PYPI, no_twin
from contracts.environments.specification import LARGEST, Specification, examined, read


def taken(name: str, text: str) -> Specification:
    specification = read(name, dedent(text))
    assert isinstance(specification, Specification), specification
    return specification


def asked(name: str, text: str) -> list[str]:
    return [one.text for one in taken(name, text).requirements]


def refused(name: str, text: str) -> list[str]:
    troubles = read(name, dedent(text))
    assert isinstance(troubles, list)
    return [str(trouble) for trouble in troubles]


# Files as they are in Azure's samples and as tools write them.

SKLEARN = """
    name: model-env
    channels:
      - conda-forge
    dependencies:
      - python=3.8
      - numpy=1.21.2
      - pip=21.2.4
      - scikit-learn=0.24.2
      - scipy=1.7.1
      - pip:
        - azureml-defaults==1.38.0
        - inference-schema[numpy-support]
        - joblib==1.0.1
"""
MLFLOW = """
    channels:
    - conda-forge
    dependencies:
    - python=3.10.12
    - pip<=23.3
    - pip:
      - mlflow==2.9.2
      - cloudpickle==2.2.1
      - psutil>=5.9,<6 ; sys_platform != "win32"
    name: mlflow-env
"""
PYTORCH = """
    name: pytorch
    channels: [pytorch, defaults]
    dependencies:
      - python>=3.9,<3.12
      - pytorch::pytorch=2.1
      - torchvision
      - msgpack-python
      - conda-forge::pytables>=3.8
      - py-opencv
      - ruamel.yaml
      - typing_extensions
      - pip:
          - --extra-index-url https://download.example.org/whl/cpu
          - --find-links=https://download.example.org/whl/stable.html
          - transformers[torch]~=4.35
"""
EXPORTED = """
    name: exported
    channels:
      - defaults
    dependencies:
      - _libgcc_mutex=0.1=main
      - ca-certificates=2023.08.22=h06a4308_0
      - ld_impl_linux-64=2.38=h1181459_1
      - numpy=1.26.4=py310h5f9d8c6_0
      - openssl=3.0.11=h7f8727e_2
      - pandas=2.1.4=py310h1128e8f_0
      - python=3.10.13=h955ad1f_0
      - xz=5.4.2=h5eee18b_0
      - pip:
          - fastapi==0.104.1
          - six==1.16.0
    prefix: /home/somebody/miniconda3/envs/exported
"""
LIGHTGBM = """
    dependencies:
    - python=3.11
    - pip:
      - lightgbm==4.1.0   # the model's
      - |
        pandas==2.1.*
        pyarrow
"""
SPACES = """
    dependencies:
      - python 3.9.*
      - numpy 1.26.4
      - pandas 2.1.4 py39_0
      - scipy >=1.10, <2
      - scikit-learn >= 1.3
      - xgboost 1.7*
      - py-xgboost=*
      - lightgbm!=4.0.*
      - catboost~=1.2
      - joblib==1.3.*
      - tqdm=4.0rc1
"""
EMPTY_PIP = """
    name: bare
    channels:
    dependencies:
      - python
      - requests
      - pip
      - pip:
"""
REQUIREMENTS = """
    # what the script imports
    --index-url https://index.example.org/simple
    --trusted-host index.example.org
    Flask_Cors >= 4, < 5     # a comment
    numpy==1.26.4; python_version >= "3.9"
    torch==2.1.0 \\
        --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \\
        --hash=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    my-package @ https://files.example.org/my_package-1.0-py3-none-any.whl
    https://files.example.org/Other_Thing-2.0.tar.gz#sha256=cc
    --pre
"""


@pytest.mark.parametrize(
    ("text", "python", "requirements"),
    [
        (
            SKLEARN,
            "==3.8.*",
            [
                *("numpy==1.21.2.*", "scikit-learn==0.24.2.*", "scipy==1.7.1.*", "azureml-defaults==1.38.0"),
                *("inference-schema[numpy-support]", "joblib==1.0.1"),
            ],
        ),
        (
            MLFLOW,
            "==3.10.12.*",
            ["mlflow==2.9.2", "cloudpickle==2.2.1", 'psutil<6,>=5.9; sys_platform != "win32"'],
        ),
        (
            PYTORCH,
            "<3.12,>=3.9",
            [
                *("torch==2.1.*", "torchvision", "msgpack", "tables>=3.8", "opencv-python-headless", "ruamel-yaml"),
                *("typing-extensions", "transformers[torch]~=4.35"),
            ],
        ),
        (EXPORTED, "==3.10.13.*", ["numpy==1.26.4.*", "pandas==2.1.4.*", "fastapi==0.104.1", "six==1.16.0"]),
        (LIGHTGBM, "==3.11.*", ["lightgbm==4.1.0", "pandas==2.1.*", "pyarrow"]),
        (
            SPACES,
            "==3.9.*",
            [
                *("numpy==1.26.4", "pandas==2.1.4", "scipy<2,>=1.10", "scikit-learn>=1.3", "xgboost==1.7.*"),
                *("xgboost", "lightgbm!=4.0.*", "catboost~=1.2", "joblib==1.3.*", "tqdm==4.0rc1"),
            ],
        ),
        (EMPTY_PIP, None, ["requests"]),
    ],
    ids=["sklearn", "mlflow", "pytorch", "exported", "lightgbm", "spaces", "empty pip"],
)
def test_a_conda_file_in_pypis_terms(text: str, python: str | None, requirements: list[str]) -> None:
    specification = taken("conda.yml", text)
    assert specification.python == python
    assert [one.text for one in specification.requirements] == requirements


def test_options_and_lines_are_kept_and_what_is_left_out_is_noted() -> None:
    specification = taken("conda.yml", PYTORCH)
    assert specification.options == (
        "--extra-index-url=https://download.example.org/whl/cpu",
        "--find-links=https://download.example.org/whl/stable.html",
    )
    assert (specification.python_line, specification.requirements[0].line) == (5, 6)
    exported = [str(note) for note in taken("conda.yml", EXPORTED).notes]
    assert "line 9: conda's build 'py310h5f9d8c6_0' is left out: numpy comes from PyPI" in exported
    assert "line 10: openssl is left out: the interpreter and PyPI's packages bring their own" in exported


def test_a_requirements_file() -> None:
    specification = taken("requirements.txt", REQUIREMENTS)
    assert [(one.line, one.name, one.text) for one in specification.requirements] == [
        (5, "flask-cors", "flask-cors<5,>=4"),
        (6, "numpy", 'numpy==1.26.4; python_version >= "3.9"'),
        (7, "torch", "torch==2.1.0"),
        (10, "my-package", "my-package @ https://files.example.org/my_package-1.0-py3-none-any.whl"),
        (11, "other-thing", "other-thing @ https://files.example.org/Other_Thing-2.0.tar.gz#sha256=cc"),
    ]
    assert specification.requirements[2].hashes == ("sha256:" + "a" * 64, "sha256:" + "b" * 64)
    assert specification.options == ("--index-url=https://index.example.org/simple", "--prerelease=allow")
    assert [str(note) for note in specification.notes] == [
        "line 4: '--trusted-host' has no meaning here and is left out"
    ]


@pytest.mark.parametrize("text", ["", "\n\n# nothing\n"])
def test_a_requirements_file_may_ask_for_nothing(text: str) -> None:
    assert taken("requirements.txt", text) == Specification()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r other.txt", "names another file, and the file is alone when its environment is built: put its lines here"),
        ("-cconstraints.txt", "names another file"),
        ("--constraint=https://example.org/c.txt", "names another file"),
        ("-e .", "names a folder"),
        ("./wheels/x-1.0-py3-none-any.whl", "names a file of the machine"),
        ("../secrets", "names a file of the machine"),
        ("/etc/passwd", "names a file of the machine"),
        ("file:///etc/passwd", "names a file of the machine"),
        ("x-1.0-py3-none-any.whl", "names a file of the machine"),
        ("x @ file:///tmp/x.whl", "names no https:// address"),
        ("x @ ./x.whl", "names no https:// address"),
        ("x @ http://example.org/x.whl", "names no https:// address"),
        ("x @ https://me:secret@example.org/x.whl", "holds credentials: secrets belong into the configuration"),
        ("git+https://example.org/x.git@main", "names a repository"),
        ("x @ git+https://example.org/x.git", "names a repository"),
        ("--index-url https://me:secret@index.example.org/simple", "holds credentials"),
        ("--extra-index-url http://index.example.org/simple", "names no https:// address"),
        ("-f ./wheels", "names no https:// address"),
        ("--index-url", "names no https:// address"),
        ("--no-binary :all:", "asks for a build from source"),
        ("--no-deps", "is an option that is not known here"),
        ("six --install-option=x", "has an option that is not known here"),
        ("six==1.0 --hash=md5:abc", "has a --hash that is none"),
        ("https://example.org/download?id=5", "does not tell the package's name"),
        ("six=1.16", "is no requirement"),
        ("six==", "is no requirement"),
        ("numpy; python_version > 'x' and", "is no requirement"),
        ("x @ https://example.org/${ENDPUNKT_SECRET}.whl", "names an environment variable"),
    ],
)
def test_a_line_that_cannot_be_had(line: str, words: str) -> None:
    (trouble,) = refused("requirements.txt", f"numpy\n{line}\n")
    assert trouble.startswith("line 2: '")
    assert words in trouble
    assert "secret@" not in trouble
    (trouble,) = refused("conda.yml", f'dependencies:\n- numpy\n- pip:\n  - six\n  - "{line}"\n')
    assert trouble.startswith("line 5: '")
    assert words in trouble


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("cudatoolkit=11.8", "cannot be had from PyPI: PyPI's packages bring their own CUDA libraries"),
        ("pytorch-cuda=11.8", "cannot be had from PyPI"),
        ("mkl", "bring OpenBLAS instead: delete the line"),
        ("gcc", "it is a compiler"),
        ("nodejs=18", "it is a program"),
        ("ffmpeg", "it is a program"),
        ("r-base=4.2", "R does not run here"),
        ("r-ggplot2", "R does not run here"),
        ("libfoo", "a library of conda's own"),
        ("our-own-package=1.0", "put it under pip: with PyPI's name"),
        ("numpy|scipy", "has alternatives ('|')"),
        ("numpy=1.25|1.26", "has alternatives ('|')"),
        ("numpy>=1.25|<1", "has alternatives ('|')"),
        ("'numpy[version=\">=1.2\"]'", "has conditions in brackets"),
        ("numpy=1.26=2=3", "has no version"),
        ("numpy 1.26 py310_0 x", "has more than a name, a version and a build"),
        ("numpy=>1.26", "has no version"),
        ("numpy==latest", "has a version that Python's requirements do not know"),
        ("=1.26", "is no package"),
        ("python: 3.10", "is neither a package nor '- pip:' with a list below it: write '- python=VERSION'"),
        ("[numpy]", "is neither a package"),
        ("python=3.11", "names Python again, after line 2"),
    ],
)
def test_a_conda_entry_that_cannot_be_had(entry: str, words: str) -> None:
    (trouble,) = refused("conda.yml", f"dependencies:\n- python=3.10\n- {entry}\n")
    assert trouble.startswith("line 3: ")
    assert words in trouble


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dependencies:\n\t- numpy\n", ["line 2: a tab: YAML is indented with spaces"]),
        ("- numpy\n", ["line 1: is no conda file: it has keys, name, channels and dependencies"]),
        ("", ["line 1: is no conda file: it has keys, name, channels and dependencies"]),
        ("name: x\n", ["line 1: has no 'dependencies': list the packages under that key"]),
        ("dependencies: numpy\n", ["line 1: 'dependencies' is no list: write one entry a line, each after '- '"]),
        (
            "dependancies:\n- numpy\ndependencies: []\n",
            ["line 1: 'dependancies' is no key of a conda file: channels, dependencies, name, prefix"],
        ),
        (
            "variables:\n  A: b\ndependencies: []\n",
            ["line 1: 'variables' is conda's way to set variables: put them into the deployment's environment"],
        ),
        (
            "dependencies:\n- six\ndependencies:\n- numpy\n",
            ["line 3: 'dependencies' is there twice: put both together"],
        ),
        (
            "dependencies:\n- pip: six\n",
            ["line 2: 'pip' is no list: write one requirement a line, each after '- '"],
        ),
        (
            "dependencies:\n- pip: [six]\n- pip: [numpy]\n",
            ["line 3: 'pip' is there again, after line 2: put both together"],
        ),
        (
            "dependencies:\n- pip:\n  - {six: 1}\n",
            ["line 3: is no requirement: write it on one line, such as numpy==1.26.4"],
        ),
        ("dependencies: [numpy\n", ["line 2: is no YAML: expected ',' or ']', but got '<stream end>'"]),
        ("a: &a [*b]\n", ["line 1: is no YAML: found undefined alias 'b'"]),
        ("? [a, b]\n: 1\ndependencies: []\n", ["line 1: '(no text)' is no key of a conda file"]),
    ],
)
def test_a_file_of_the_wrong_form(text: str, expected: list[str]) -> None:
    assert [trouble[: len(words)] for trouble, words in zip(refused("e.yaml", text), expected, strict=True)] == expected


def test_every_trouble_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
        channel: defaults
        dependencies:
          - mkl
          - python=3.7=x=y
          - nothing-known
          - pip:
            - -e .
            - six==1.0
            - ./x.whl
    """
    lines = [trouble.line for trouble in examined("c.yml", dedent(text))[1]]
    assert lines == [1, 3, 4, 5, 7, 9]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "&a [" * 2000])
def test_hostile_yaml_is_refused_and_not_followed(text: str) -> None:
    assert refused("c.yml", f"dependencies:\n- {text}\n")


@pytest.mark.parametrize("line", ["six; " + "(" * 15_000, "(" * 15_000, "six " * 10_000])
def test_a_hostile_line_is_refused_and_not_followed(line: str) -> None:
    (trouble,) = refused("r.txt", line)
    assert trouble.startswith("line 1: '")
    assert len(trouble) < 500


def test_what_grows_by_its_own_names_stays_small() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    troubles = refused("c.yml", bomb + "dependencies:\n- *u\n- ? *u\n  : 1\n")
    assert all(len(trouble) < 500 for trouble in troubles)


def test_a_file_that_is_too_large_is_no_environment_file() -> None:
    assert refused("r.txt", "#" * (LARGEST + 1)) == ["line 1: more than 256 Ki characters are no environment file"]


@pytest.mark.parametrize(
    ("name", "text", "conda"),
    [
        ("conda.yaml", "dependencies: [six]", True),
        ("CONDA.YML", "dependencies: [six]", True),
        ("environment", "name: x\ndependencies: [six]", True),
        ("environment", "six", False),
        ("requirements.in", "six", False),
    ],
)
def test_the_name_or_what_is_inside_tells_the_kind_of_file(name: str, text: str, conda: bool) -> None:
    assert asked(name, text) == ["six"]
    assert no_twin("six") is None
    assert (not isinstance(read(name, "name: x"), Specification)) or not conda


def digest(name: str, text: str, python: str = "3.11.2 /usr/bin/python3.11", platform: str = "linux-x86_64") -> str:
    return taken(name, text).digest(python, platform)


ONE = "dependencies: [python=3.11, numpy=1.26, {pip: [six==1.16.0]}]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yml", "# a comment\nname: other\nchannels: [x]\ndependencies:\n- pip: [SIX==1.16.0]\n- numpy =1.26\n"),
        ("r.txt", "six == 1.16.0  # comment\nnumpy==1.26.*\nnumpy == 1.26.*\n"),
    ],
)
def test_files_that_mean_the_same_have_one_digest(name: str, text: str) -> None:
    assert digest(name, text) == digest("c.yml", ONE)


@pytest.mark.parametrize(
    "text",
    [
        "numpy==1.26.*",
        "numpy==1.26.*\nsix==1.17.0",
        "numpy==1.26.*\nsix==1.16.0\nuvloop",
        "--pre\nnumpy==1.26.*\nsix==1.16.0",
        "numpy==1.26.*\nsix==1.16.0 --hash=sha256:" + "a" * 64,
        'numpy==1.26.*\nsix==1.16.0; python_version > "3"',
    ],
)
def test_files_that_mean_something_else_have_another(text: str) -> None:
    assert digest("r.txt", text) != digest("c.yml", ONE)


def test_the_interpreter_and_the_platform_are_part_of_the_meaning() -> None:
    digests = {digest("c.yml", ONE), digest("c.yml", ONE, python="3.12.1 /p"), digest("c.yml", ONE, platform="mac")}
    assert len(digests) == 3


def test_the_tables_of_names_do_not_contradict_each_other() -> None:
    assert not PYPI.keys() & NO_TWIN.keys()
    assert not PYPI.keys() & PART_OF_PYTHON
    assert not NO_TWIN.keys() & PART_OF_PYTHON
    assert all(no_twin(name) is None for name in (*PYPI, *PART_OF_PYTHON, "python"))
    assert all(reason.strip() and ":" in reason for reason in NO_TWIN.values())
