"""libweir as C programs use it: installed, found by pkg-config, compiled against, run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import process
from servers.ports import free_port, listens, wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "c"
HERE = Path(__file__).parent / "c"

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("pkg-config"), reason="needs gcc and pkg-config"
)


def run(*command: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=300,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which ``meson install`` has put the library."""
    build = tmp_path_factory.mktemp("build")
    prefix = tmp_path_factory.mktemp("prefix")
    meson = Path(sys.executable).parent / "meson"
    run(meson, "setup", build, ROOT, f"--prefix={prefix}", "--libdir=lib")
    run(meson, "install", "-C", build)
    return prefix


@pytest.fixture(scope="module")
def env(prefix: Path) -> dict[str, str]:
    lib = f"{prefix}/lib"
    return {**os.environ, "PKG_CONFIG_PATH": f"{lib}/pkgconfig", "LD_LIBRARY_PATH": lib}


@pytest.fixture
def build(env: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Compile a file with the flags of pkg-config for the packages."""

    def build(source: Path, *packages: str, flags: tuple[str, ...] = ("-std=gnu11",)) -> Path:
        links = run("pkg-config", "--cflags", "--libs", *packages, env=env).stdout.split()
        compiler = "g++" if source.suffix == ".cpp" else "gcc"
        output = tmp_path / source.stem
        run(compiler, *flags, "-Wall", "-Wextra", "-Werror", source, *links, "-o", output, env=env)
        return output

    return build


# ------------------------------------------------------------------------------------- installed


def test_what_is_installed(prefix: Path, env: dict[str, str]) -> None:
    names = {path.name for path in (ROOT / "include" / "weir").iterdir()}
    assert {path.name for path in (prefix / "include" / "weir").iterdir()} == names
    for library in ("weir", "weir-hiredis"):
        assert (prefix / "lib" / f"lib{library}.a").exists()
        (real,) = (prefix / "lib").glob(f"lib{library}.so.*.*.*")
        soname = run("objdump", "-p", real).stdout
        assert re.search(rf"SONAME +lib{library}\.so\.\d+\n", soname)
        assert run("pkg-config", "--modversion", library, env=env).stdout.strip() == "0.1.0"
    for page in ("man1/weir.1", "man3/libweir.3"):
        assert (prefix / "share" / "man" / page).exists()


def test_man_pages_are_set_without_a_warning(prefix: Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("needs groff")
    for page in ("man1/weir.1", "man3/libweir.3"):
        done = run("groff", "-man", "-Tutf8", "-ww", "-z", prefix / "share" / "man" / page)
        assert done.stderr == ""


@pytest.mark.parametrize("standard", ["c11", "c2x", "gnu17"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_header_compiles_by_itself(
    prefix: Path, tmp_path: Path, standard: str, compiler: str
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    for header in sorted((prefix / "include" / "weir").iterdir()):
        source = tmp_path / "one.c"
        source.write_text(f"#include <weir/{header.name}>\nint main(void) {{ return 0; }}\n")
        flags = (f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wundef")
        run(compiler, *flags, f"-I{prefix}/include", "-fsyntax-only", source)


@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_a_cpp_program_includes_every_header(build, env, standard: str) -> None:
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    headers = {path.name for path in (ROOT / "include" / "weir").iterdir()}
    source = HERE / "headers.cpp"
    assert set(re.findall(r"<weir/(\w+\.h)>", source.read_text())) == headers
    program = build(source, "weir", flags=(f"-std={standard}", "-pedantic"))
    assert run(program, env=env).stdout == "1\n0\n"


def test_a_cmake_project_finds_the_library(prefix: Path, env, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    shutil.copy(EXAMPLES / "demo.c", tmp_path)
    shutil.copy(EXAMPLES / "CMakeLists.txt", tmp_path)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", env=env)
    run("cmake", "--build", tmp_path / "build", env=env)
    assert "alice passes" in run(tmp_path / "build" / "demo", "1/minute", "alice", env=env).stdout


@pytest.mark.parametrize("all_static", [False, True], ids=["library", "program"])
def test_the_static_library_suffices(prefix: Path, env, tmp_path: Path, all_static: bool) -> None:
    """It is linked into a program that loads libc, and into one that is linked statically."""
    links = run("pkg-config", "--static", "--cflags", "--libs", "weir", env=env).stdout.split()
    if not all_static:
        links = [f"{prefix}/lib/libweir.a" if word == "-lweir" else word for word in links]
    output, mode = tmp_path / "demo", ["-static"] if all_static else []
    run("gcc", "-std=gnu11", *mode, EXAMPLES / "demo.c", *links, "-o", output)
    plain = {key: value for key, value in env.items() if key != "LD_LIBRARY_PATH"}
    assert "denied" in run(output, "1/minute", "alice", "2", env=plain).stdout


# -------------------------------------------------------------------------------------- examples


def test_examples_are_short() -> None:
    for source in EXAMPLES.glob("*.c"):
        assert len(source.read_text().splitlines()) < 200


def test_the_command_line_example(build, env) -> None:
    demo = build(EXAMPLES / "demo.c", "weir")
    lines = run(demo, "2 per minute; 100 per day", "alice", "3", env=env).stdout.splitlines()
    assert lines[:2] == [
        "alice passes: 1 left of 2 per 1 minute",
        "alice passes: 0 left of 2 per 1 minute",
    ]
    assert lines[2].startswith("alice is denied by 2 per 1 minute for 60.0 s")
    wrong = subprocess.run([demo, "2 per moon", "x"], capture_output=True, text=True, env=env)
    assert wrong.returncode == 1
    assert 'unknown unit "moon"' in wrong.stderr


def test_the_threaded_server_example(build, env, tmp_path: Path) -> None:
    if subprocess.run(["pkg-config", "--exists", "libmicrohttpd"]).returncode:
        pytest.skip("needs libmicrohttpd")
    from concurrent.futures import ThreadPoolExecutor
    from urllib.error import HTTPError
    from urllib.request import urlopen

    server = build(EXAMPLES / "server.c", "weir", "libmicrohttpd")
    port = free_port()

    def get(_: int) -> tuple[int, str | None]:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=300) as response:
                return response.status, None
        except HTTPError as error:
            with error:
                return error.code, error.headers["Retry-After"]

    began = time.monotonic()
    with process.running(
        [server, str(port), "20 per hour"],
        lambda: listens(("127.0.0.1", port)),
        tmp_path / "log",
        env=env,
    ) as started:
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(get, range(60)))
        assert [status for status, _ in seen].count(200) == 20
        waits = [int(wait) for status, wait in seen if status == 429 and wait]
        assert len(waits) == 40
        since = time.monotonic() - began
        assert all(3599 - since <= wait <= 3600 for wait in waits)
        started.terminate()
        assert started.wait(process.PATIENCE) == 0


def test_the_event_loop_example(build, env, redis) -> None:
    port = redis.port
    patient = (
        "-std=gnu11",
        "-DDEADLINE_MS=20000",
    )  # for a busy machine
    loop = build(EXAMPLES / "loop.c", "weir-hiredis", "hiredis", flags=patient)
    done = run(loop, "127.0.0.1", str(port), "2 per hour", input="a\nb\na\na\n", env=env)
    assert sorted(re.sub(r" \d.*", "", line) for line in done.stdout.splitlines()) == [
        "a is denied for",
        "a passes:",
        "a passes:",
        "b passes:",
    ]
    # The script is loaded, then flushed; a stopped server does not answer.
    redis.client().script_flush()
    again = run(loop, "127.0.0.1", str(port), "2 per hour", input="a\nb\n", env=env)
    assert "a is denied" in again.stdout
    assert "b passes: 0 left" in again.stdout
    loop = build(EXAMPLES / "loop.c", "weir-hiredis", "hiredis")
    with redis.frozen():
        late = subprocess.run(
            [loop, "127.0.0.1", str(port), "2 per hour"],
            input="a\nb\n",
            capture_output=True,
            text=True,
            timeout=300,
            env=env,
        )
    assert late.returncode == 1
    assert late.stdout.count("no decision") == 2


# -------------------------------------------------------------------------------------- hiredis


class Probe:
    """tests/system/c/probe.c, one line for each request."""

    def __init__(self, program: Path, env: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=env,
        )

    def send(self, key: str) -> tuple[str, int]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(key + "\n")
        message, _, took = self.process.stdout.readline().rstrip().rpartition(" ")
        return message, int(took)

    def end(self) -> int:
        with self.process as process:
            assert process.stdin
            process.stdin.close()
            return process.wait(120)


@pytest.fixture
def probe(build, env) -> Iterator[Callable[..., Probe]]:
    program = build(HERE / "probe.c", "weir-hiredis")
    made: list[Probe] = []

    def probe(*arguments: object) -> Probe:
        made.append(Probe(program, env, *map(str, arguments)))
        return made[-1]

    yield probe
    for each in made:
        assert each.end() == 0


def test_a_decision_is_one_round_trip(probe, redis) -> None:
    caller = probe(redis.port, 20_000)
    assert [caller.send("a")[0] for _ in range(4)] == ["allowed"] * 3 + ["denied"]
    before = redis.commands()
    assert caller.send("b")[0] == "allowed"
    assert redis.commands() == before + 1
    with redis.client() as client:  # only the first sent the script
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1
    assert caller.send("clear a")[0] == "cleared"
    assert caller.send("a")[0] == "allowed"


def test_a_server_without_the_script_is_sent_it(probe, redis) -> None:
    caller = probe(redis.port, 20_000)
    assert caller.send("a")[0] == "allowed"
    with redis.client() as client:
        client.script_flush()
    assert [caller.send("a")[0] for _ in range(3)] == ["allowed", "allowed", "denied"]


def test_a_lost_connection_is_opened_again(probe, redis) -> None:
    caller = probe(redis.port, 20_000)
    assert caller.send("a")[0] == "allowed"
    with redis.client() as client:
        client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
    assert caller.send("a")[0] == "allowed"  # the loss is noticed before anything is sent


def test_the_deadline_covers_the_whole_call(probe, redis) -> None:
    caller = probe(redis.port, 300)
    wait_for(lambda: caller.send("a")[0] in ("allowed", "denied"))
    with redis.frozen():
        for _ in range(2):  # on the open connection, then on a new one
            message, took = caller.send("a")
            assert message == "Redis: Connection timed out"
            assert 250 <= took < 20_000
    wait_for(lambda: caller.send("b")[0] in ("allowed", "denied"))


def test_a_server_that_is_away_or_refuses_is_an_error(probe, redis) -> None:
    assert "AUTH" in probe(redis.port, 20_000, "wrong").send("a")[0]
    nowhere = probe(free_port(), 20_000)
    assert nowhere.send("a")[0] == "Redis: cannot connect: Connection refused"
    caller = probe(redis.port, 20_000)
    assert caller.send("a")[0] == "allowed"
    redis.kill()
    assert caller.send("a")[0].startswith("Redis: ")


def test_what_is_no_redis_is_an_error(probe) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        caller = probe(listener.getsockname()[1], 60_000)
        assert caller.process.stdin
        caller.process.stdin.write("a\n")
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert caller.process.stdout
            assert "not a Redis server" in caller.process.stdout.readline()
