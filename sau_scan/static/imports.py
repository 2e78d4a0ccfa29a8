"""Which imported names a pickle of tensors may use, and how bad the others are.

What may be used is listed, and nothing else: lists of what is dangerous have been got past again and again. Those
serve only to tell "known to run code" (critical) from "not known" (high).
"""

from __future__ import annotations

import io
import logging
import sys
from functools import cache

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from sau_scan.static.opcodes import HIDDEN, Global

logging.getLogger("picklescan").addHandler(logging.NullHandler())
logging.getLogger("picklescan").propagate = False

_STORAGES = (
    "Bool Byte Char Short Int Long Half BFloat16 Float Double ComplexFloat ComplexDouble QInt8 QInt32 QUInt8 QUInt4x2 "
    "QUInt2x4 Untyped Typed"
).split()
_DTYPES = (
    "float16 float32 float64 bfloat16 half float double int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool "
    "complex32 complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
    "qint8 quint8 qint32"
).split()
_PLAIN = "set frozenset complex bytearray list dict tuple int float bool str bytes slice object".split()
# Constructors of numpy arrays under their old and their new place.
_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_TYPES = "dtype ndarray bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
ADMITTED: frozenset[Global] = frozenset(
    {
        *(
            Global(module, f"{kind}Storage")
            for module in ("torch", "torch.cuda", "torch.storage")
            for kind in _STORAGES
        ),
        *(Global("torch", name) for name in (*_DTYPES, "Size", "device", "Tensor", "strided", "per_tensor_affine")),
        *(
            Global("torch._utils", name)
            for name in (
                "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
                "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor "
                "_rebuild_meta_tensor_no_storage _rebuild_nested_tensor "
                "_rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor"
            ).split()
        ),
        Global("torch._tensor", "_rebuild_from_type_v2"),
        Global("torch.nn.parameter", "Parameter"),
        Global("torch.serialization", "_get_layout"),
        Global("collections", "OrderedDict"),
        Global("collections", "Counter"),
        Global("_codecs", "encode"),
        *(Global(module, name) for module in ("builtins", "__builtin__") for name in _PLAIN),
        *(Global(core, name) for core in _NUMPY_CORES for name in ("_reconstruct", "scalar")),
        *(Global("numpy", name) for name in _NUMPY_TYPES),
        *(
            Global("numpy.dtypes", f"{name}DType")
            for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")
        ),
    }
)
# Training frameworks leave the name of a class behind, as a key; that is harmless as long as it is not called.
NAMED_ONLY = ("pytorch_lightning.callbacks.", "lightning.pytorch.callbacks.")
# Of the standard library, but plain data; not for tensors, and not known to run code either.
_DATA = frozenset(
    Global(module, name)
    for module, names in {
        "datetime": "datetime date time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "pathlib": "Path PosixPath WindowsPath PurePosixPath PureWindowsPath PurePath",
        "argparse": "Namespace",
        "collections": "defaultdict deque",
        "copyreg": "_reconstructor",
        "copy_reg": "_reconstructor",
        "uuid": "UUID",
    }.items()
    for name in names.split()
)
# Beyond what picklescan knows: names of other packages that run, load or fetch what they are given.
_LOADERS = frozenset(
    "IPython cloudpickle dill joblib keras mlflow numpy.ctypeslib numpy.distutils numpy.f2py numpy.lib numpy.testing "
    "pandas pip pkg_resources requests setuptools tensorflow torch._dynamo torch._inductor torch.compiler "
    "torch.distributed torch.fx torch.hub torch.jit torch.library torch.multiprocessing "
    "torch.onnx torch.ops torch.package torch.testing "
    "torch.utils transformers.dynamic_module_utils triton wheel yaml".split()
)
_LOADING = frozenset(
    {
        Global("numpy", "load"),
        Global("torch", "load"),
        Global("torch", "compile"),
        Global("torch.serialization", "load"),
        Global("torch.storage", "_load_from_bytes"),
    }
)


def readable(found: Global) -> bool:
    """Whether torch's restricted reader takes what is admitted: NumPy's values, for one, it does not."""
    module = "builtins" if found.module == "__builtin__" else found.module  # as protocol 2 says it
    return f"{module}.{found.name}" in _taken_by_torch()


@cache
def _taken_by_torch() -> frozenset[str]:
    try:
        from torch._weights_only_unpickler import _get_allowed_globals
    except ImportError:  # not public; then nothing is promised
        return frozenset()
    return frozenset(_get_allowed_globals())


def admitted(found: Global, called: bool) -> bool:
    """Whether a file of tensors may import this; ``called``: whether it also does something with it."""
    return found in ADMITTED or (not called and found.module.startswith(NAMED_ONLY))


def dangerous(found: Global) -> bool:
    """Whether this is known to run code, load files, or reach for either."""
    top = found.module.partition(".")[0]
    if HIDDEN in found or top in {"builtins", "__builtin__"} or found in _LOADING or "__" in found.name:
        return True
    if found in _DATA:
        return False
    if top in sys.stdlib_module_names or top in _OLD_PYTHON:
        return True
    parts = found.module.split(".")
    return any(".".join(parts[: n + 1]) in _LOADERS for n in range(len(parts))) or _known_to_picklescan(found)


# Names that the unpickler maps to today's, and modules that other versions of Python had.
_OLD_PYTHON = frozenset(
    "commands cPickle StringIO cStringIO httplib urllib2 os2 __builtin__ anydbm dbhash popen2 new imp asyncore "
    "asynchat smtpd distutils lib2to3 pipes mailcap cgi crypt telnetlib nntplib idlelib".split()
)


@cache
def _known_to_picklescan(found: Global) -> bool:
    """picklescan's opinion of one name, asked with a pickle that only imports it."""
    if "\n" in found.module + found.name:
        return True
    stream = f"c{found.module}\n{found.name}\n.".encode("utf-8", "replace")
    return any(known.safety is SafetyLevel.Dangerous for known in scan_pickle_bytes(io.BytesIO(stream), "").globals)


def second_opinion(data: bytes) -> set[Global]:
    """What picklescan itself calls dangerous in these bytes."""
    try:
        scanned = scan_pickle_bytes(io.BytesIO(data), "")
    except Exception:  # it is not made for hostile input; our own trace stands
        return set()
    return {Global(found.module, found.name) for found in scanned.globals if found.safety is SafetyLevel.Dangerous}
