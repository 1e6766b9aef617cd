"""Loading: precedence of the sources, what follows from values, all problems at once, nothing left behind."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.config import SETTINGS, Config, load, paths
from sdserve.config.gunicorn import worker_class_of
from sdserve.errors import ConfigError

Load = Callable[..., Config]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Loads with arguments and an environment, in a directory of its own."""

    def run(*argv: str, **environ: str) -> Config:
        return load(argv, environ, str(tmp_path))

    return run


def problems(loaded: Load, *argv: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(*argv, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_defaults(loaded: Load, tmp_path: Path) -> None:
    cfg = loaded()
    assert {entry.source for entry in cfg.settings.values()} == {"default"}
    assert list(cfg.settings) == list(SETTINGS)
    assert cfg.bind == ["127.0.0.1:8000"]
    assert cfg.address == [("127.0.0.1", 8000)]
    assert (cfg.workers, cfg.threads, cfg.timeout, cfg.graceful_timeout, cfg.keepalive) == (1, 1, 30, 30, 2)
    assert (cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size) == (4094, 100, 8190)
    assert cfg.chdir == cfg.directory == str(tmp_path)
    assert (cfg.uid, cfg.gid) == (os.geteuid(), os.getegid())
    assert cfg.wsgi_app is None
    assert cfg.proc_name == "sdserve"
    assert cfg.worker_class_uri == cfg.worker_class_str == "auto"
    assert cfg.when_ready("anything") is None


def test_precedence(loaded: Load, tmp_path: Path) -> None:
    assert _source(loaded()) == ("default", 1)

    environ = {"WEB_CONCURRENCY": "2"}
    assert _source(loaded(**environ)) == ("environment WEB_CONCURRENCY", 2)

    (tmp_path / "sdserve.conf.py").write_text("workers = 3\n")
    assert _source(loaded(**environ)) == (f"file {tmp_path / 'sdserve.conf.py'}", 3)

    environ["SDSERVE_WORKERS"] = "4"
    assert _source(loaded(**environ)) == ("environment SDSERVE_WORKERS", 4)

    environ["SDSERVE_CMD_ARGS"] = "--workers 5"
    assert _source(loaded(**environ)) == ("environment SDSERVE_CMD_ARGS", 5)

    assert _source(loaded("-w", "6", **environ)) == ("command line", 6)


def _source(cfg: Config) -> tuple[str, int]:
    entry = cfg.settings["workers"]
    assert entry.get() == entry.value == cfg.workers
    return entry.source, entry.value


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"SDSERVE_BIND": "a:1, unix:/x"}, "bind", ["a:1", "unix:/x"]),
        ({"SDSERVE_RAW_ENV": "A=1,2\nB=3"}, "raw_env", ["A=1,2", "B=3"]),
        ({"SDSERVE_PRELOAD_APP": "yes"}, "preload_app", True),
        ({"SDSERVE_WSGI_APP": "a:b"}, "wsgi_app", "a:b"),
        ({"SDSERVE_GPUS": "0,1"}, "gpus", ["0", "1"]),
        ({"USE_GPUS": "2,3"}, "gpus", ["2", "3"]),
        ({"USE_GPUS": "2,3", "SDSERVE_GPUS": "0"}, "gpus", ["0"]),
        ({"PORT": "5000"}, "bind", ["0.0.0.0:5000"]),
        ({"FORWARDED_ALLOW_IPS": "*"}, "forwarded_allow_ips", ["*"]),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "control_socket", "/run/a/control"),
        ({"RUNTIME_DIRECTORY": "/run/a", "SDSERVE_CONTROL_SOCKET": "/x"}, "control_socket", "/x"),
        ({"SDSERVE_WORKERS": "  "}, "workers", 1),
        ({"SDSERVE_CMD_ARGS": "'my app:f(\"x y\")' -e 'A=b c'"}, "wsgi_app", 'my app:f("x y")'),
        ({"SDSERVE_SERVICE_HOST": "10.0.0.1", "SDSERVE_PORT_80_TCP": "tcp://10.0.0.1:80"}, "workers", 1),
    ],
)
def test_environment(loaded: Load, environ: dict[str, str], name: str, value: object) -> None:
    assert getattr(loaded(**environ), name) == value


def test_what_a_better_source_changes_of_the_file_is_told(loaded: Load, tmp_path: Path) -> None:
    file = tmp_path / "sdserve.conf.py"
    file.write_text("workers = 7\nthreads = 2\nraw_env = ['KEY=secret']\n")
    cfg = loaded("-e", "KEY=other", SDSERVE_WORKERS="4", SDSERVE_THREADS="2", SDSERVE_TIMEOUT="9")
    assert sorted(cfg.warnings) == [
        f"raw_env: command line says others and overrides its items of the config file {file}",
        f"workers: environment SDSERVE_WORKERS says 4 and overrides 7 of the config file {file}",
    ]


def test_a_flag_takes_back_what_a_lesser_source_switched_on(loaded: Load) -> None:
    assert loaded("--no-preload", SDSERVE_PRELOAD_APP="1").preload_app is False


def test_the_empty_control_socket_is_none(loaded: Load) -> None:
    assert loaded("--control-socket", "", RUNTIME_DIRECTORY="/run/a").control_socket is None


def test_what_follows_from_values(loaded: Load) -> None:
    cfg = loaded(
        *("-b", "unix:/x", "-b", "fd://3", "-e", "A=1=2", "-e", "B="),
        *("-u", "root", "-g", "7", "-k", "pkg.mod.Class", "pkg.app:make()"),
    )
    assert cfg.address == ["/x", 3]
    assert cfg.env == {"A": "1=2", "B": ""}
    assert (cfg.uid, cfg.gid) == (0, 7)
    assert cfg.worker_class_uri == cfg.worker_class_str == "pkg.mod.Class"
    assert cfg.wsgi_app == cfg.proc_name == "pkg.app:make()"
    assert cfg.settings["proc_name"].source == "default"


def test_directories(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    cfg = loaded("--chdir", "site", "--pythonpath", "lib,/srv/lib,../up")
    assert cfg.chdir == str(tmp_path / "site")
    assert cfg.pythonpath == [str(tmp_path / "site/lib"), "/srv/lib", str(tmp_path / "up")]
    assert cfg.directory == str(tmp_path)


def test_the_config_file_is_found_from_the_start_directory(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "c.py").write_text("workers = 2\nchdir = 'site'\n")
    for _ in range(2):
        cfg = loaded("-c", "c.py")
        assert (cfg.workers, cfg.chdir) == (2, str(tmp_path / "site"))


def test_gunicorns_default_file_is_read_unless_the_empty_name_is_given(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3\n")
    cfg = loaded()
    assert (cfg.workers, cfg.config) == (3, str(tmp_path / "gunicorn.conf.py"))
    assert loaded("-c", "").workers == 1


def test_a_worker_class_may_be_a_class(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("class Mine: pass\nworker_class = Mine\n")
    cfg = loaded()
    assert cfg.worker_class_str == "Mine"
    assert isinstance(cfg.worker_class_uri, type)


def test_a_gunicorn_config_file_runs_unchanged(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        """
import multiprocessing

bind = '127.0.0.1:8001'
backlog = 512
workers = multiprocessing.cpu_count() + 1
worker_class = 'sync'
worker_connections = 1000
timeout = 45
keepalive = 5
spew = False
daemon = False
raw_env = ['SECRET=x', 'SPAM=eggs']
pidfile = None
umask = 0
user = None
group = None
tmp_upload_dir = None
errorlog = '-'
loglevel = 'warn'
accesslog = '-'
proc_name = None
forwarded_allow_ips = '10.0.0.0/8,::1'
proxy_protocol = True
limit_request_fields = 0
limit_request_line = 0
limit_request_field_size = "2M"
limit_request_head = 0

def post_fork(server, worker):
    server.log.info("spawned %s", worker.pid)

def pre_fork(server, worker):
    pass

def post_request(worker, req):
    return req
"""
    )
    cfg = loaded("a:b")
    assert cfg.address == [("127.0.0.1", 8001)]
    assert cfg.loglevel == "warning"
    assert cfg.proxy_protocol == "auto"
    assert cfg.limit_request_fields == 32768
    assert cfg.limit_request_line == cfg.limit_request_field_size == cfg.limit_request_head == 1 << 20
    assert cfg.env == {"SECRET": "x", "SPAM": "eggs"}
    assert cfg.settings["umask"].source != "default"
    assert cfg.settings["user"].source == "default"
    assert cfg.post_request("worker", "req", "environ", "resp") == "req"


def test_all_problems_of_all_sources_are_told_at_once(loaded: Load, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text("workers = 'many'\nwokers = 2\ncertfile = 'x'\ndef pre_fork(server): pass\ntimeout = -1\n")
    found = problems(
        loaded,
        *("-c", "c.py", "--threads", "0", "--bnd", "x", "a:b"),
        SDSERVE_UMASK="999",
        SDSERVE_WROKERS="3",
        SDSERVE_LOGCONFIG="h",
        SDSERVE_CMD_ARGS="--backlog x",
        USE_GPUS="a b",
        WEB_CONCURRENCY="lots",
    )
    expected = [
        f"{path}:1: workers: 'many' is not a whole number",
        f"{path}:2: wokers = 2 is not a setting; did you mean workers?",
        f"{path}:3: gunicorn's setting certfile = 'x' has no counterpart",
        f"{path}:4: pre_fork: the function pre_fork cannot be called as pre_fork(server, worker)",
        f"{path}:5: timeout: -1 is not a number of seconds",
        "--threads: '0' is not a whole number",
        "--bnd is not an option; did you mean --bind?",
        "SDSERVE_UMASK: '999' is not a mask",
        "SDSERVE_WROKERS='3' is not a setting; did you mean SDSERVE_WORKERS?",
        "SDSERVE_LOGCONFIG: gunicorn's setting logconfig = 'h' has no counterpart",
        "SDSERVE_CMD_ARGS: --backlog: 'x' is not a whole number",
        "USE_GPUS: 'a b' is not the index",
        "WEB_CONCURRENCY: 'lots' is not a whole number",
    ]
    for start in expected:
        assert any(problem.startswith(start) for problem in found), start
    assert len(found) == len(expected)


def test_the_problems_of_a_file_are_told_in_the_order_of_its_lines(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(
        "timeout = -1\nworkers = 'many'\ncertfile = 'x'\nwokers = 2\n" + "\n" * 6 + "bind = 1\n"
    )
    found = problems(loaded, "-c", "c.py", "--threads", "0", "a:b")
    assert [problem.split(":")[1] for problem in found[:-1]] == ["1", "2", "3", "4", "11"]
    assert found[-1].startswith("--threads: ")


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("worker_connections = 500", "worker_connections = 500"),
        ("worker_tmp_dir = '/dev/shm'", "worker_tmp_dir = '/dev/shm'"),
        ("tmp_upload_dir = '/tmp'", "tmp_upload_dir = '/tmp'"),
        ("capture_output = True", "capture_output = True"),
        ("enable_stdio_inheritance = True", "enable_stdio_inheritance = True"),
        ("sendfile = False", "sendfile = False"),
        ("debug = True", "debug = True"),
    ],
)
def test_what_means_nothing_here_is_accepted_with_a_line(loaded: Load, tmp_path: Path, text: str, setting: str) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(f"{text}\n")
    (warning,) = loaded("a:b").warnings
    assert warning.startswith(f"{tmp_path / 'gunicorn.conf.py'}:1: gunicorn's setting {setting} means here: ")


def test_a_flag_or_a_variable_is_accepted_as_well(loaded: Load) -> None:
    warnings = loaded("--worker-tmp-dir", "/dev/shm", "a:b", SDSERVE_CAPTURE_OUTPUT="1").warnings
    assert [line.partition(":")[0] for line in warnings] == ["SDSERVE_CAPTURE_OUTPUT", "--worker-tmp-dir"]


def test_no_control_socket_means_none(loaded: Load) -> None:
    cfg = loaded("--no-control-socket", "a:b", RUNTIME_DIRECTORY="/run/x")
    assert cfg.control_socket is None
    assert "sdservectl does not find this server" in cfg.warnings[0]


@pytest.mark.parametrize("name", ["gthread", "egg:gunicorn#sync", "gunicorn.workers.sync.SyncWorker"])
def test_gunicorns_classes_with_threads_or_without_are_ours(loaded: Load, name: str) -> None:
    cfg = loaded("-k", name)
    assert (cfg.worker_class_str, cfg.threads, cfg.warnings) == (name, 1, [])
    assert worker_class_of(name) == "wsgi"


@pytest.mark.parametrize("name", ["gevent", "eventlet", "tornado", "gunicorn.workers.ggevent.GeventWorker"])
def test_threads_stand_in_for_greenlets(loaded: Load, name: str) -> None:
    cfg = loaded("-k", name)
    assert (worker_class_of(name), cfg.threads) == ("wsgi", 64)
    assert cfg.settings["threads"].source == f"worker_class {name}"
    assert cfg.warnings == [
        f"worker_class = {name!r} (command line): there are no greenlets here, "
        "each worker serves with 64 threads (threads = 64)"
    ]
    cfg = loaded("-k", name, "--threads", "3")
    assert cfg.threads == 3
    assert "each worker serves with 3 threads" in cfg.warnings[0]


@pytest.mark.parametrize("name", ["uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornH11Worker"])
def test_our_worker_stands_in_for_uvicorns(loaded: Load, name: str) -> None:
    cfg = loaded("-k", name)
    assert (cfg.worker_class_uri, cfg.worker_class_str, cfg.threads) == ("asgi", name, 1)
    assert cfg.warnings == [
        f"worker_class = {name!r} (command line): sdserve's own ASGI worker serves in its place (worker_class = 'asgi')"
    ]


def test_what_has_our_name_is_ours(loaded: Load) -> None:
    assert (loaded("-k", "asgi").worker_class_uri, loaded("-k", "asgi").warnings) == ("asgi", [])


def test_gunicorns_variable_is_not_read_and_that_is_said(loaded: Load) -> None:
    cfg = loaded("a:b", GUNICORN_CMD_ARGS="-w 4")
    assert cfg.workers == 1
    assert cfg.warnings == ["GUNICORN_CMD_ARGS is not read here: SDSERVE_CMD_ARGS is, and takes the same options"]


def test_gunicorns_default_for_headers_of_a_proxy_is_taken_without_the_path(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("forwarder_headers = 'SCRIPT_NAME,PATH_INFO'\n")
    cfg = loaded("a:b")
    assert cfg.forwarder_headers == ["SCRIPT_NAME"]
    [warning] = cfg.warnings
    assert "names PATH_INFO, which is left out" in warning


def test_hooks_find_gunicorns_settings(loaded: Load) -> None:
    cfg = loaded("--worker-connections", "10", HOME="/home/x")
    hooks: Any = cfg  # what hooks are for type checkers
    assert hooks.worker_connections == "10"
    assert (hooks.reload, hooks.certfile, cfg.is_ssl, cfg.ssl_options) == (False, None, False, {})
    assert cfg.env_orig == {"HOME": "/home/x"}


def test_what_counts_only_beside_another_setting_passes_without_it(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text(
        "syslog_prefix = 'x'\nciphers = 'X'\nreload_engine = 'poll'\ndef ssl_context(conf, factory): return factory()\n"
    )
    assert loaded("a:b").warnings == []
    assert len(problems(loaded, "--log-syslog", "a:b")) == 2


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ("http://0.0.0.0:8001", ("0.0.0.0", 8001)),
        ("http://localhost/", ("localhost", 8000)),
        ("::1", ("::1", 8000)),
        ("::", ("::", 8000)),
    ],
)
def test_addresses_as_people_write_them(loaded: Load, spec: str, address: tuple[str, int]) -> None:
    assert loaded("-b", spec).address == [address]


def test_an_address_with_tls_is_refused(loaded: Load) -> None:
    (problem,) = problems(loaded, "-b", "https://0.0.0.0:8443")
    assert "TLS ends in a proxy in front" in problem


def test_the_umask_that_applies_is_the_inherited_one(loaded: Load) -> None:
    before = os.umask(0o027)
    try:
        cfg = loaded()
    finally:
        os.umask(before)
    assert cfg.umask == 0o027
    assert cfg.settings["umask"].source == "default"


def test_modules_beside_the_config_file_stay_importable_under_another_chdir(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("def hook(server): pass\n")
    (tmp_path / "deep").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    cfg = loaded("--chdir", "deep", SDSERVE_ON_EXIT="beside.hook")
    before = os.getcwd()
    try:
        cfg.enter()
        assert sys.path[:2] == [str(tmp_path / "deep"), str(tmp_path)]
    finally:
        os.chdir(before)
        paths.lead_imports([])
        sys.modules.pop("beside", None)


def test_a_mistake_is_told_even_where_a_better_source_overrides_it(loaded: Load) -> None:
    assert problems(loaded, "-w", "2", SDSERVE_WORKERS="x") == [
        "SDSERVE_WORKERS: 'x' is not a whole number, 0 to 10000"
    ]


def test_a_config_file_that_only_chdir_has_is_not_read_and_named(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gunicorn.conf.py").write_text("workers = 4\n")
    cfg = loaded("--chdir", "site")
    assert cfg.workers == 1
    (warning,) = cfg.warnings
    assert warning.startswith(f"{tmp_path}/site/gunicorn.conf.py is not read: ")
    assert loaded("--chdir", "site", "-c", "").warnings == []
    assert loaded("--chdir", "site", "-c", "site/gunicorn.conf.py").warnings == []


def test_the_exception_of_a_config_file_is_chained(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError) as caught:
        loaded("-c", "c.py", "-w", "x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("argv", "environ", "problem"),
    [
        (["--chdir", "nowhere"], {}, "--chdir: 'nowhere' is not a directory"),
        (
            [],
            {"SDSERVE_CMD_ARGS": "'open"},
            'SDSERVE_CMD_ARGS: "\'open" is not quoted as in a shell: No closing quotation',
        ),
        (["--header-map", "dangerous"], {}, "--header-map: 'dangerous' is not one of drop, refuse; 'dangerous' is not"),
        (["--log-level", "loud"], {}, "--log-level: 'loud' is not one of trace, debug, info, warning, error, critical"),
        ([], {"PORT": "http"}, "PORT: '0.0.0.0:http': 'http' is not a port"),
    ],
)
def test_single_problems(loaded: Load, argv: list[str], environ: dict[str, str], problem: str) -> None:
    (found,) = problems(loaded, *argv, **environ)
    assert found.startswith(problem)


def test_hooks_are_imported_from_where_the_application_is(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "hooks_of_the_site.py").write_text("def ready(server):\n    return 'called'\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "hooks_of_the_lib.py").write_text("def reload(server):\n    return 'too'\n")
    (tmp_path / "c.py").write_text("when_ready = 'hooks_of_the_site.ready'\non_reload = 'hooks_of_the_lib.reload'\n")
    cfg = loaded("-c", "c.py", "--chdir", "site", "--pythonpath", "../lib")
    assert cfg.when_ready("server") == "called"
    assert cfg.on_reload("server") == "too"


def test_loading_leaves_directory_and_import_path_alone(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text(
        "import os, sys\nproc_name = os.getcwd()\nassert os.getcwd() in sys.path\n"
    )
    cwd, path = os.getcwd(), list(sys.path)
    assert loaded().proc_name == str(tmp_path)
    assert (os.getcwd(), sys.path) == (cwd, path)
    problems(loaded, "-w", "x")
    assert (os.getcwd(), sys.path) == (cwd, path)


def test_each_load_reads_the_file_afresh(loaded: Load, tmp_path: Path) -> None:
    for workers in (1, 2, 3):
        (tmp_path / "sdserve.conf.py").write_text(f"workers = {workers}\n")
        assert loaded().workers == workers


def test_the_configuration_is_immutable(loaded: Load) -> None:
    cfg = loaded()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.workers = 3
    with pytest.raises(AttributeError, match="immutable"):
        cfg.settings["workers"].value = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="there is no setting wokers; did you mean workers"):
        getattr(cfg, "wokers")  # noqa: B009 - a type checker refuses it


def test_two_configurations_share_no_lists(loaded: Load) -> None:
    loaded().bind.append("x:1")
    loaded().secure_scheme_headers.clear()
    assert loaded().bind == ["127.0.0.1:8000"]
    assert loaded().secure_scheme_headers


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 10_000), st.sampled_from(["drop", "refuse"]), st.booleans())
def test_the_sources_agree_about_every_value(workers: int, threads: int, header_map: str, preload: bool) -> None:
    by_flags = load(
        [f"-w{workers}", "--threads", str(threads), f"--header-map={header_map}", *["--preload"] * preload], {}, "/"
    )
    by_environment = load(
        [],
        {
            "SDSERVE_WORKERS": str(workers),
            "SDSERVE_THREADS": str(threads),
            "SDSERVE_HEADER_MAP": header_map,
            "SDSERVE_PRELOAD_APP": str(preload),
        },
        "/",
    )
    for cfg in (by_flags, by_environment):
        assert (cfg.workers, cfg.threads, cfg.header_map, cfg.preload_app) == (workers, threads, header_map, preload)


@pytest.mark.parametrize("argv", [["--help"], ["-h", "--nonsense"], ["--version"]])
def test_help_and_version_end_the_program(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(argv, {"SDSERVE_WORKERS": "x"})
    assert caught.value.code == 0
    assert "sdserve" in capsys.readouterr().out
