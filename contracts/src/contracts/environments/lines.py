"""What the lines of a requirements file ask for: each is taken, or refused with its number and the reason.

PURE: no I/O. Source of the format: pip's "Requirements File Format" and PEP 508. The file is alone when its
environment is built, on a machine of others: it names neither files of that machine nor its environment variables
(uv would replace `${NAME}`), and it carries no secrets.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a line (from 1) of the file, and what to do."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that line `line` asks for: PEP 508 in one spelling, and the digests that it may have (empty: any)."""

    line: int
    name: str
    text: str
    hashes: tuple[str, ...] = ()


@dataclass(slots=True)
class Reading:
    """What has been read so far. `options` are for uv; `notes` are for whoever wonders what became of a line."""

    requirements: list[Requirement] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    notes: list[Trouble] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


_LONGEST = 16_384
"""Characters of a line, its continuations included: a package of many builds has a hundred digests."""

_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_DIGEST = re.compile(r"(sha256|sha384|sha512):[0-9a-f]{64,128}")
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(--[a-zA-Z][a-zA-Z-]*|-[a-zA-Z])(?:\s*=\s*|\s*)(.*)", re.DOTALL)
_FILE = re.compile(r"\.{0,2}/|~|file:|[A-Za-z]:\\|.*\.(whl|zip|tar\.gz|tgz|tar\.bz2)$")
_VCS = re.compile(r"(.*@\s*)?(git|hg|svn|bzr)\+")

_LONG = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links"}
_URLS = {"--index-url", "--extra-index-url", "--find-links"}
_ALONE = "the file is alone when its environment is built"
_REFUSED = {
    "--requirement": f"names another file, and {_ALONE}: put its lines here",
    "--constraint": f"names another file, and {_ALONE}: put its versions into the lines here",
    "--editable": f"names a folder, and {_ALONE}: put that code into the deployment's code folder",
    "--no-binary": "asks for a build from source, and packages are installed as built: delete it",
}
_WITHOUT_MEANING = {
    *("--trusted-host", "--no-cache-dir", "--prefer-binary", "--upgrade", "-U", "--quiet", "-q", "--only-binary"),
    *("--disable-pip-version-check", "--use-feature", "--progress-bar", "--require-hashes", "--use-pep517"),
}


def logical(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a requirements file without comments, continued ones joined, with the number of their first."""
    start, held = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not held:
            start = number
        line = _COMMENT.sub("", line) if not line.rstrip().endswith("\\") else line
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1] + " "
            continue
        if whole := (held + line).strip():
            yield start, whole
        held = ""
    if held.strip():
        yield start, held.strip()


def take(lines: Iterable[tuple[int, str]], into: Reading) -> None:
    """Read numbered lines."""
    for number, line in lines:
        try:
            if len(line) > _LONGEST:
                raise ValueError(f"is longer than {_LONGEST} characters")
            if "${" in line:
                raise ValueError("names an environment variable: write out what it stands for; secrets do not go here")
            if line.startswith("-"):
                _option(number, line, into)
            else:
                into.requirements.append(_requirement(number, line))
        except ValueError as error:
            into.troubles.append(Trouble(number, f"'{shown(line)}' {error}"))


def shown(line: str) -> str:
    """The line as it may be repeated: cut, for a terminal, and without a password that it should not have."""
    printable = "".join(char if char.isprintable() else "�" for char in line[:200])
    return re.sub(r"//[^/@\s]*@", "//***@", printable)


def _option(number: int, line: str, into: Reading) -> None:
    match = _OPTION.fullmatch(line)
    if match is None:
        raise ValueError("is no requirement and no option")
    name, value = _LONG.get(match[1], match[1]), match[2].strip()
    if name in _REFUSED:
        raise ValueError(_REFUSED[name])
    if name in _URLS:
        into.options.append(f"{name}={_url(value)}")
    elif name == "--pre":
        into.options.append("--prerelease=allow")
    elif name in _WITHOUT_MEANING:
        into.notes.append(Trouble(number, f"'{name}' has no meaning here and is left out"))
    else:
        raise ValueError("is an option that is not known here: delete it")


def _url(url: str) -> str:
    """`url`, checked. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or len(url.split()) != 1:
        raise ValueError("names no https:// address: what comes from elsewhere can be replaced on its way")
    if "@" in parts.netloc:
        raise ValueError(
            "holds credentials: secrets belong into the configuration of the machine (uv's netrc or UV_INDEX), "
            "the file is kept readable"
        )
    return url


def _requirement(number: int, line: str) -> Requirement:
    hashes = tuple(sorted(set(_HASH.findall(line))))
    if wrong := [one for one in hashes if not _DIGEST.fullmatch(one)]:
        raise ValueError(f"has a --hash that is none: '{wrong[0][:80]}'; write sha256: and 64 hexadecimal digits")
    text = _HASH.sub("", line).strip()
    if _VCS.match(text):
        raise ValueError("names a repository, which has no digest to hold it to: name a release of the package")
    if re.match(r"https?:", text):
        text = f"{_name_in(text)} @ {text}"
    elif _FILE.match(text) and "@" not in text:
        raise ValueError(f"names a file of the machine, and {_ALONE}: put the code into the deployment's code folder")
    if " --" in text:
        raise ValueError("has an option that is not known here: delete it")
    try:
        parsed = Parsed(text)
    except InvalidRequirement as error:
        raise ValueError(f"is no requirement: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("is no requirement: its conditions are nested too deeply") from None
    if parsed.url is not None:
        if not parsed.url.startswith("https:"):
            raise ValueError(f"names no https:// address, and {_ALONE}")
        _url(parsed.url)
    name = canonicalize_name(parsed.name)
    return Requirement(number, name, str(parsed).replace(parsed.name, name, 1), hashes)


def _name_in(url: str) -> str:
    """The name of the package that lies at `url`. Raises ValueError."""
    file = urlsplit(url).path.rpartition("/")[2]
    try:
        return str(parse_wheel_filename(file)[0] if file.endswith(".whl") else parse_sdist_filename(file)[0])
    except (InvalidWheelFilename, InvalidSdistFilename):
        raise ValueError(f"does not tell the package's name: write 'name @ {url.split('?')[0][:100]}'") from None
