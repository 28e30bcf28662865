"""The environments that user code runs in: from a conda YAML or requirements.txt to an interpreter with its packages.

| module | decides |
|---|---|
| `names` | what a conda package is called on PyPI, and which have no twin there (pure) |
| `lines` | what one line of a requirements file asks for (pure) |
| `conda` | what a conda YAML asks for (pure) |
| `specification` | what a file asks for, all its troubles, and the digest of its meaning (pure) |
| `pythons` | which interpreter is taken (pure), and which there are |
| `failures` | what a person is told when uv fails (pure) |
| `orders` | from a file to what is to be built, on this machine |
| `lock` | what is locked, and to which digests (pure) |
| `tool` | uv as a subprocess, and the log of a build |
| `bytecode` | bytecode, in the background |
| `builder` | the environment on disk, built once, by uv |
| `runtime` | the inference server, laid where every environment can import it |
"""
