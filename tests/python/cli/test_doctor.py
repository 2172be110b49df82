"""weir doctor: each thing that is wrong is a finding, and the finding suggests a fix."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from weir import Table, _foreign
from weir.cli import doctor as module
from weir.cli.doctor import machine
from weir.cli.doctor.finding import examine_store
from weir.cli.main import cli

APP = """
from flask import Flask
from weir.flask import Limiter
from weir.flask.util import get_remote_address
app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, {options})
"""

#: All names that findings can have.
NAMES = {
    "python",
    "weir",
    "packages",
    "not installed",
    "/dev/shm",
    "auto:// now",
    "auto:// without a server",
    *(f"auto:// under {server}" for server in machine._SERVERS),
    "store",
    "redis",
    "conflicts",
    "application",
    "settings",
    "its store",
    "proxies",
    "limits",
}


def run_doctor(*arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    done = CliRunner().invoke(cli, ["doctor", "--json", *arguments], standalone_mode=False)
    assert done.exception is None, done.output
    report = json.loads(done.stdout)
    assert report["schema"] == 1
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in report["findings"]:
        assert finding.keys() == {"name", "status", "text", "fix"}
        assert finding["status"] in ("ok", "warning", "error")
        assert finding["status"] == "ok" or finding["fix"]
        found.setdefault(finding["name"], []).append(finding)
    return done.return_value, found


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that can be imported; returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"doctored_{uuid.uuid4().hex[:12]}"  # modules stay imported
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def application(module_of: Any, request: Any) -> str:
    return f"{module_of(APP.format(options=request.param))}:app"


# ------------------------------------------------------------------------------ machine and stores


def test_a_sound_machine_has_nothing_to_change() -> None:
    code, found = run_doctor("--store", "memory://")
    assert found["python"][0]["status"] == "ok"
    assert "libc" in found["python"][0]["text"] or "musl" in found["python"][0]["text"]
    assert found["store"][0]["status"] == "ok"
    assert found.keys() <= NAMES
    statuses = {one["status"] for of in found.values() for one in of}
    assert code == (0 if statuses == {"ok"} else 1)


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(machine, "SHARED_MEMORY", folder)
    return folder


def statvfs(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    size: int = 64 << 20,
    flags: int = 0,
) -> None:
    values = os.statvfs(folder)
    room = os.statvfs_result(
        (4096, 4096, size // 4096, free // 4096, free // 4096, *values[5:8], flags, 255)
    )
    monkeypatch.setattr(machine.os, "statvfs", lambda _: room)


def automatic(name: str = "gunicorn") -> machine.Finding:
    (found,) = (f for f in machine.check_servers(_NOTHING) if f.name == f"auto:// under {name}")
    return found


_NOTHING = module.Arguments("", "")


def test_without_shared_memory_each_worker_counts_on_its_own(
    shared_memory: Path,
) -> None:
    shared_memory.rmdir()
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.status == "error"
    assert "does not exist" in found.text
    assert automatic().status == "warning"
    assert automatic().text.startswith("private memory, each worker counts separately")


@pytest.mark.parametrize(
    ("free", "status", "server", "text"),
    [
        (64 << 20, "ok", "ok", "memory that all its workers share"),
        (12 << 20, "warning", "warning", "room for a smaller table only"),
        (1 << 20, "warning", "error", "the server does not start"),
    ],
)
def test_the_room_in_shared_memory_decides_about_auto(
    shared_memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    status: str,
    server: str,
    text: str,
) -> None:
    statvfs(shared_memory, monkeypatch, free)
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.status == status
    assert automatic().status == server
    assert text in automatic().text


def test_shared_memory_that_is_mounted_read_only_is_an_error(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statvfs(shared_memory, monkeypatch, 64 << 20, flags=os.ST_RDONLY)
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.status == "error"
    assert "read-only" in found.text
    assert "mount it writable" in found.fix
    assert "read-only" in automatic().text
    assert "room" not in automatic().fix  # there may be plenty


def test_shared_memory_that_no_table_fits_in_gets_no_advice_that_fails(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `--shm-size=64k`: neither fewer keys nor removing files helps."""
    statvfs(shared_memory, monkeypatch, 64 << 10, 64 << 10)
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.text.startswith("64 KiB of 64 KiB free")
    assert "keys" not in found.fix
    assert "64 KiB free" in automatic().text
    assert "room" not in automatic().fix


@pytest.mark.parametrize("free", [1 << 20, 3 << 20, 7 << 20, 23 << 20])
def test_a_table_with_the_suggested_keys_fits(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    statvfs(shared_memory, monkeypatch, free)
    (found,) = machine.check_shared_memory(_NOTHING)
    keys = found.fix.partition("keys=")[2]
    assert Table(f"memory://?keys={keys}").info()["bytes"] <= free


def test_shared_memory_of_other_users_is_an_error(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.status == "error"
    assert "may not write" in found.text


def test_macos_has_no_shared_memory_and_that_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    (found,) = machine.check_shared_memory(_NOTHING)
    assert found.status == "ok"
    assert "memory://" in found.text
    assert automatic().text.startswith("private memory")


@pytest.mark.parametrize("scheme", ["redis", "valkey", "redis+sentinel", "memcached", "mongodb"])
def test_a_store_that_does_not_answer_is_an_error_without_its_password(scheme: str) -> None:
    path = "/group" if "sentinel" in scheme else ""
    code, found = run_doctor("--store", f"{scheme}://user:hush@127.0.0.1:1{path}")
    assert code == 1
    assert found["store"][0]["status"] == "error"
    assert "hush" not in json.dumps(found)


def test_the_reason_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Client libraries log nothing of it, and logging is as it was afterwards."""
    found = examine_store("postgresql://127.0.0.1:1/x")
    assert found.status == "error"
    assert caplog.records == []
    assert logging.root.manager.disable == 0
    found = examine_store("redis://127.0.0.1:1")
    assert "refused" in found.text
    assert found.text.count("redis://127.0.0.1:1") == 1


@pytest.mark.parametrize(
    "uri",
    ["nothing://", "foo", "shm://", "shm://a/b", "file:///no/such/x", "shm://new-one?keys=many"],
)
def test_a_store_that_cannot_be_read_is_an_error(uri: str) -> None:
    code, found = run_doctor("--store", uri)
    assert code == 1
    assert found["store"][0]["status"] == "error"


def test_a_store_whose_package_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    found = examine_store("valkey://127.0.0.1:1")
    assert found.status == "error"
    assert "pip install valkey" in found.text
    assert found.fix == "install the package"


def test_a_table_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "table"
    _, found = run_doctor("--store", f"file://{path}?keys=1000")
    assert found["store"][0]["status"] == "ok"
    assert "does not exist yet" in found["store"][0]["text"]
    assert not path.exists()


@pytest.mark.parametrize(
    ("free", "flags", "text"),
    [
        (64 << 10, 0, "64 KiB free"),
        (64 << 20, os.ST_RDONLY, "is mounted read-only"),
    ],
)
def test_a_table_that_cannot_be_created_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, flags: int, text: str
) -> None:
    statvfs(tmp_path, monkeypatch, free, flags=flags)
    found = examine_store(f"file://{tmp_path}/table?keys=10000")
    assert found.status == "error"
    assert f"/table?keys=10000 cannot be created: {'it takes' if not flags else ''}" in found.text
    assert text in found.text
    assert found.fix


# --------------------------------------------------------------------------------------- conflicts


def test_a_foreign_weir_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_foreign, "foreign_distribution", lambda: tmp_path / "weir-1.dist-info")
    code, found = run_doctor()
    assert code == 1
    assert found["conflicts"][0]["status"] == "error"
    assert "pip uninstall weir" in found["conflicts"][0]["fix"]


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_stars(_: object) -> Any:
        raise KeyError("cloud")
        yield

    monkeypatch.setattr(module, "_CHECKS", (check_stars, module.check_python))
    code, found = run_doctor()
    assert code == 1
    assert found["stars"][0]["status"] == "error"
    assert found["python"][0]["status"] == "ok"


# ------------------------------------------------------------------------------------- application


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be loaded"),
        ("x = 1", "Failed to find Flask application"),
        ("from flask import Flask\nFlask(", "SyntaxError"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such"),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", "E, whose text cannot be"),
        ("raise RuntimeError('no\\ndatabase')", "RuntimeError: no database"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("from flask import Flask\na, b = Flask('a'), Flask('b')", "multiple Flask applications"),
    ],
    ids=["missing", "no-app", "syntax", "imports", "broken-error", "raises", "exits", "several"],
)
def test_an_application_that_cannot_be_loaded_is_an_error(
    module_of: Any, text: str | None, words: str
) -> None:
    code, found = run_doctor(
        "--app", "no_such_module_at_all:app" if text is None else module_of(text)
    )
    assert code == 1
    assert found["application"][0]["status"] == "error"
    assert words in found["application"][0]["text"]
    assert "\n" not in found["application"][0]["text"]


def test_what_an_application_prints_stays_out_of_the_report(module_of: Any) -> None:
    name = module_of("print('hello')\nfrom flask import Flask\napp = Flask(__name__)")
    code, found = run_doctor("--app", name)
    assert code == 1
    assert "has no limiter" in found["application"][0]["text"]


LOUD = """
import atexit, os, sys
atexit.register(print, 'at exit')
os.write(1, b'from C')
print('while imported')
sys.stdout.write('unfinished')
from flask import Flask
app = Flask(__name__)
"""


@pytest.mark.parametrize("ending", ["", "import no_such_module_at_all", "raise SystemExit(1)"])
def test_only_the_report_is_on_standard_output(module_of: Any, ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weir", "doctor", "--json", "--app", module_of(LOUD + ending)],
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["schema"] == 1
    for text in ("from C", "while imported", "unfinished", "at exit"):
        assert text in done.stderr


def test_settings_that_weir_does_not_have_are_warnings(module_of: Any) -> None:
    """Also if the limiter is switched off; a similar setting is named."""
    for enabled in (True, False):
        settings = "app.config.update(RATELIMIT_DEAFULT='5/minute', RATELIMIT_GLOBAL='6/minute')"
        text = APP.replace("limiter =", f"{settings}\nlimiter =")
        _, found = run_doctor(
            "--app", f"{module_of(text.format(options=f'enabled={enabled}'))}:app"
        )
        assert [one["text"] for one in found["settings"]] == [
            "there is no setting RATELIMIT_DEAFULT; did you mean RATELIMIT_DEFAULT?",
            "there is no setting RATELIMIT_GLOBAL: it is RATELIMIT_DEFAULT now",
        ]


def test_a_limiter_of_flask_limiter_is_a_warning(module_of: Any) -> None:
    pytest.importorskip("flask_limiter")
    text = APP.replace("weir.flask", "flask_limiter").format(options="storage_uri='memory://'")
    name = module_of(text)
    done = subprocess.run(
        [sys.executable, "-m", "weir", "doctor", "--json", "--app", name],
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)["findings"]
    assert [one["fix"] for one in found if one["name"] == "application"] == [
        "import Limiter from weir.flask"
    ]


@pytest.mark.parametrize("application", ['storage_uri="memory://"'], indirect=True)
def test_private_memory_of_an_application_is_a_warning(application: str) -> None:
    code, found = run_doctor("--app", application)
    assert code == 1
    assert [one["status"] for one in found["its store"]] == ["warning"]
    assert "trusted_proxies" in found["proxies"][0]["fix"]
    assert found.keys() <= NAMES


@pytest.mark.parametrize("application", ["enabled=False"], indirect=True)
def test_a_limiter_that_is_switched_off_is_a_warning(application: str) -> None:
    code, found = run_doctor("--app", application)
    assert code == 1
    assert "switched off" in found["application"][0]["text"]


# ------------------------------------------------------------------------------------------ limits


def limits_of(module_of: Any, options: str, routes: str = "") -> list[str]:
    name = module_of(APP.format(options=options) + routes)
    return [one["text"] for one in run_doctor("--app", name)[1]["limits"]]


@pytest.mark.parametrize(
    "options",
    ['default_limits=["10/minute", "100/minute"]', 'default_limits=["1000/second;10/hour"]'],
)
def test_a_default_limit_that_never_binds_is_one_warning(module_of: Any, options: str) -> None:
    routes = "".join(f"\n@app.get('/{n}')\ndef view_{n}(): return ''\n" for n in range(3))
    (text,) = limits_of(module_of, options, routes)
    assert text.startswith("default limits: ")
    assert "can never deny a request" in text


def test_limits_of_several_decorators_are_examined_together(module_of: Any) -> None:
    (text,) = limits_of(
        module_of,
        "",
        "\n@app.get('/')\n@limiter.limit('1000/second')\n@limiter.limit('10/hour')\n"
        "def view(): return ''\n",
    )
    assert text.startswith('route view: "1000 per 1 second" can never deny a request')


def test_a_limit_of_the_application_is_why_a_limit_of_a_route_never_binds(module_of: Any) -> None:
    (text,) = limits_of(
        module_of,
        'application_limits=["5/hour"]',
        "\n@app.get('/')\n@limiter.limit('10/minute')\ndef view(): return ''\n",
    )
    assert text.startswith('route view: "10 per 1 minute" can never deny a request')


@pytest.mark.parametrize(
    "decorators",
    [
        "@limiter.limit('1000/second')\n@limiter.limit('10/hour', key_func=lambda: 'x')",
        "@limiter.limit('1000/second')\n@limiter.limit('10/hour', methods=['POST'])",
        "@limiter.limit('1000/second')\n@limiter.limit('10/hour', exempt_when=lambda: True)",
        "@limiter.limit('1000/second', cost=lambda: 9)\n@limiter.limit('10/hour')",
        "@limiter.limit('1000/second')\n@limiter.limit('10/hour', shadow=True)",
        "@limiter.shared_limit('1000/second', scope='x')\n@limiter.limit('10/hour')",
        "@limiter.limit(lambda: 1 / 0)\n@limiter.limit('10/hour')",
    ],
)
def test_limits_that_count_other_requests_are_not_compared(module_of: Any, decorators: str) -> None:
    routes = f"\n@app.route('/', methods=['GET', 'POST'])\n{decorators}\ndef view(): return ''\n"
    (text,) = limits_of(module_of, "", routes)
    assert "each can deny requests" in text
    assert ("were not examined" in text) == ("1 / 0" in decorators)


def test_a_cost_that_a_limit_never_admits_is_a_warning(module_of: Any) -> None:
    view = "\n@app.get('/{0}')\n@limiter.limit('10/minute', cost={0})\ndef view_{0}(): return ''\n"
    (text,) = limits_of(module_of, "", view.format(10) + view.format(11))
    assert text.startswith('route view_11: "10 per 1 minute" denies every request: each costs 11')


def test_at_most_a_screenful_of_limits_is_shown(module_of: Any) -> None:
    routes = "".join(
        f"\n@app.get('/{n}')\n@limiter.limit('1000/second;10/hour')\ndef view_{n}(): return ''\n"
        for n in range(30)
    )
    found = limits_of(module_of, "", routes)
    assert len(found) == 21
    assert found[-1] == "another 10 limits can never deny a request"
