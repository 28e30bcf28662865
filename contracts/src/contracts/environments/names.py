"""What conda packages are called on PyPI, which are part of Python itself, and which have no twin there, and why.

PURE: tables, nothing is looked up. A name that is in no table is refused with its line rather than guessed: the same
word can be another project's on PyPI.
"""

from collections.abc import Mapping

_SAME = """
absl-py accelerate adal adlfs aiobotocore aiohttp alembic altair annoy anyio applicationinsights arch argon2-cffi
arrow asgiref asyncpg attrs azure-ai-ml azure-common azure-core azure-cosmos azure-functions azure-identity
azure-keyvault-secrets azure-mgmt-core azure-storage-blob azure-storage-file-datalake azureml-core azureml-defaults
azureml-inference-server-http azureml-mlflow azureml-sdk babel backoff backports.zoneinfo bcrypt beautifulsoup4
bitsandbytes black blinker bokeh boto3 botocore bottleneck brotlipy cachetools catboost category_encoders certifi cffi
chardet charset-normalizer click cloudpickle cmdstanpy colorama contourpy coverage cryptography cvxpy cycler cython
dash dask databricks-sdk datasets datashader debugpy deepdiff deltalake diffusers dill distributed django dnspython
docker duckdb einops elasticsearch eli5 evaluate faiss-cpu faker fastapi fasteners fastparquet feather-format filelock
flake8 flask flask-cors flatbuffers fonttools frozenlist fsspec ftfy fugue future gast gensim geopandas gitpython
google-api-core google-auth google-cloud-storage gradio greenlet grpcio gunicorn h11 h5netcdf h5py holidays holoviews
httpcore httptools httpx huggingface_hub hyperopt idna imageio imbalanced-learn importlib-metadata importlib-resources
importlib_metadata importlib_resources inference-schema iniconfig interpret ipykernel ipython ipywidgets itsdangerous
jax jaxlib jedi jinja2 jmespath joblib jsonpickle jsonschema jupyter jupyterlab kafka-python keras kiwisolver kombu
langchain lazy_loader librosa lifelines lightgbm lightning llvmlite lxml lz4 mako mapie markdown markupsafe matplotlib
mlflow mlflow-skinny mlxtend mock more-itertools msal msal-extensions msrest multidict multiprocess mypy nbconvert
nbformat networkx nltk nodeenv notebook numba numexpr numpy nvidia-ml-py oauthlib onnx onnxconverter-common
onnxmltools onnxruntime openai openai-whisper openpyxl opentelemetry-api opentelemetry-sdk opt-einsum optuna orjson
overrides packaging pandas pandera papermill paramiko partd passlib pathspec patsy peft pexpect pika pillow
platformdirs plotly pluggy pmdarima polars portalocker prometheus_client prompt-toolkit prophet protobuf psutil
psycopg2 psycopg2-binary py-cpuinfo pyarrow pyasn1 pycparser pydantic pydantic-core pydot pygments pyjwt pymongo
pymssql pymysql pynndescent pyodbc pyopenssl pyparsing pyproj pysocks pyspark pytest pytest-cov python-dateutil
python-dotenv python-json-logger python-multipart pytorch-lightning pytz pywavelets pyyaml pyyaml-env-tag pyzmq
qdrant-client rasterio redis regex requests requests-oauthlib rich rsa ruamel.yaml s3fs s3transfer sacremoses
safetensors scikit-image scikit-learn scikit-optimize scipy seaborn sentence-transformers sentencepiece sentry-sdk
seqeval setuptools shap shapely simplejson six skl2onnx sklearn-pandas slicer smart_open sniffio
snowflake-connector-python sortedcontainers soundfile soupsieve spacy sqlalchemy sqlparse starlette statsforecast
statsmodels streamlit sympy tabulate tbb tenacity tensorboard tensorboard-data-server tensorflow tensorflow-cpu
tensorflow-hub tensorflow-probability termcolor textblob threadpoolctl tifffile tiktoken timm tokenizers toml tomli
toolz torchaudio torchmetrics torchtext torchvision tornado tqdm traitlets transformers treelite trio typer
typing-extensions typing_extensions tzlocal ujson umap-learn unidecode urllib3 uvicorn uvloop validators virtualenv
watchdog watchfiles wcwidth websocket-client websockets werkzeug wheel wordcloud wrapt xarray xgboost xlrd xlsxwriter
yarl yellowbrick zarr zipp zstandard
"""

_OTHER = {
    "brotli-python": "brotli",
    "dask-core": "dask",
    "faiss": "faiss-cpu",
    "fasttext": "fasttext-wheel",
    "google-cloud-bigquery-core": "google-cloud-bigquery",
    "keras-base": "keras",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "pytables": "tables",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "seaborn-base": "seaborn",
    "snappy-python": "python-snappy",
    "sqlalchemy-base": "sqlalchemy",
    "tensorflow-base": "tensorflow",
    "torch-cpu": "torch",
    "torchvision-cpu": "torchvision",
}

PYPI: Mapping[str, str] = {name: name for name in _SAME.split()} | _OTHER
"""Conda's name to PyPI's."""

_PARTS = """
_libgcc_mutex _openmp_mutex _python_abi3_support blas bzip2 ca-certificates expat ld_impl_linux-64 libblas libcblas
libexpat libffi libgcc libgcc-ng libgfortran libgfortran-ng libgfortran5 libgomp liblapack liblzma libnsl libopenblas
libsqlite libstdcxx libstdcxx-ng libuuid libxcrypt libzlib ncurses nomkl openblas openssl pip python_abi readline
sqlite tk tzdata xz zlib
"""
PART_OF_PYTHON = frozenset(_PARTS.split())
"""What `conda env export` lists beside a person's packages: the interpreter and PyPI's packages bring their own."""

_COMPILER = "it is a compiler, and packages are installed as their authors built them: delete the line"
_GPU = (
    "PyPI's packages bring their own CUDA libraries: delete the line, and name the build that you need under pip:, "
    "such as torch with --extra-index-url"
)
_PROGRAM = "it is a program and no Python package: have it installed on the machine and delete the line"
_MKL = "numpy and scipy from PyPI bring OpenBLAS instead: delete the line"

NO_TWIN: Mapping[str, str] = {
    "cpuonly": "it chooses a build of conda's pytorch: delete the line, and put torch under pip: with "
    "PyTorch's own index of CPU builds as --extra-index-url",
    **dict.fromkeys(("cuda", "cuda-toolkit", "cudatoolkit", "cudnn", "nccl", "pytorch-cuda", "pytorch-gpu"), _GPU),
    "tensorflow-gpu": "PyPI withdrew that name: put tensorflow[and-cuda] under pip:",
    **dict.fromkeys(("intel-openmp", "mkl", "mkl-service", "mkl_fft", "mkl_random"), _MKL),
    **dict.fromkeys(("c-compiler", "clang", "compilers", "cxx-compiler", "gcc", "gcc_linux-64", "gfortran"), _COMPILER),
    **dict.fromkeys(("gxx", "gxx_linux-64", "libgcc-devel_linux-64", "llvmdev"), _COMPILER),
    **dict.fromkeys(
        ("cmake", "curl", "ffmpeg", "gdal", "git", "git-lfs", "graphviz", "htop", "jq", "libgdal"), _PROGRAM
    ),
    **dict.fromkeys(("make", "maven", "nginx", "nodejs", "openjdk", "pandoc", "poppler", "tesseract"), _PROGRAM),
    **dict.fromkeys(("unixodbc", "vim", "wget"), _PROGRAM),
    **dict.fromkeys(("r", "r-base", "r-essentials"), "R does not run here: deployments are Python"),
    "anaconda": "it is conda's whole distribution: name the packages that the script imports",
    "conda": "there is no conda here: environments are built from PyPI's packages; delete the line",
}
"""Conda packages that PyPI cannot stand in for: the reason and the next step."""


def no_twin(name: str) -> str | None:
    """Why the conda package `name` cannot be had, or None when it can."""
    if name in NO_TWIN:
        return NO_TWIN[name]
    if name.startswith("r-"):
        return "R does not run here: deployments are Python"
    if name in PYPI or name in PART_OF_PYTHON or name == "python":
        return None
    if name.startswith("lib"):
        return "it is a library of conda's own, and packages of PyPI bring theirs: delete the line"
    return "it is not among the names that are known: if PyPI has it, put it under pip: with PyPI's name"
