"""What is told of a scoring script before it is sent."""

import pytest

from endpunkt_cli.script_check import check_script

INIT, RUN = "def init():\n    pass\n", "def run(data):\n    return data\n"


@pytest.mark.parametrize(
    "text",
    [
        INIT + RUN,
        "async def init(): ...\n" + RUN,
        "from model import init, predict as run\n",
        "from model import *\n",
        INIT + "run = lambda data: data\n",
        f"try:\n    import numpy\nexcept ImportError:\n    pass\nelse:\n    init = print\n{RUN}",
        "if True:\n    def init(): ...\nwith open('x') as run:\n    pass\n",
        INIT + "for run in (): pass\n",
    ],
)
def test_what_may_be_a_script(text: str) -> None:
    assert check_script(text, "score.py") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (INIT, ["score.py: defines no `run`"]),
        ("", ["score.py: defines no `init`", "score.py: defines no `run`"]),
        (INIT + "class Model:\n    def run(self): ...\n", ["score.py: defines no `run`"]),
        (RUN + "def load():\n    init = 1\n", ["score.py: defines no `init`"]),
        (INIT + "def run(data:\n", ["score.py:3: is no Python: '(' was never closed"]),
        (INIT + "\x00", ["score.py: is no Python: source code string cannot contain null bytes"]),
    ],
)
def test_what_is_no_script(text: str, told: list[str]) -> None:
    found = [str(trouble) for trouble in check_script(text, "score.py")]
    assert [each.startswith(start) for each, start in zip(found, told, strict=True)] == [True] * len(told), found
