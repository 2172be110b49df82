"""Two users of one host: no attack of one on the other's server has an effect.

The attacker creates, removes, locks, truncates and replaces whatever it may in /dev/shm, under
names that the server uses or might use, and sends signals. Meanwhile the server gets requests, its
workers are killed and restarted, and a second server starts. ``WEIR_SECONDS`` sets the duration.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from servers.isolation import SHM
from servers.limited import LIMIT, REQUESTS, Start, fresh

SECONDS = float(os.environ.get("WEIR_SECONDS", "3"))
ATTACKER = 65533

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed"),
]

#: Uses only the standard library: another user may not be able to read this checkout.
ATTACK = """
import fcntl, os, random, signal, socket, sys, time
victim, seconds, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
print("WEIR_SEED", seed, flush=True)
chance = random.Random(seed)
namespace = os.stat("/proc/self/ns/pid").st_ino
done = 0

def attempt(function, *arguments):
    global done
    try:
        function(*arguments)
        done += 1
    except OSError:
        pass

def names():
    '''Names that the server uses, has used, or may use.'''
    uid = os.stat(f"/proc/{victim}").st_uid
    found = [name for name in os.listdir("/dev/shm") if name.startswith("weir")]
    yield from chance.sample(found, min(len(found), 100))
    for i in ("", ".1", ".2", f".{chance.randrange(1024)}"):
        yield f"weir.auto-{uid}{i}"
    yield f"weir.auto-{uid}-{namespace}-99999999999-1"
    yield f"weir.auto-{uid}-{namespace}-{victim}-{chance.randrange(10**6)}"
    yield f"weir.auto-{uid}-{'9' * 60}-1-1"
    yield f"weir.auto-{uid}.{'9' * 200}"
    yield f"weir.auto-{uid}.{chance.choice(['-1', '0', '00', '1e9', '0x1', ' 1'])}"
    yield f"weir.auto-{uid}\\n[error] forged\\x1b[2J"
    yield os.fsdecode(b"weir.auto-%d.\\xff\\xfe" % uid)
    yield f"weir.{'n' * 250}"
    yield f"weir.made-{chance.randrange(10**9)}"

def inside(path):
    attempt(os.listdir, path)
    for name in ("x", f"{namespace}-{victim}-1-{'0' * 12}"):
        attempt(write, f"{path}/{name}")

def write(path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        os.write(file, b"x" * 5000)
    finally:
        os.close(file)

def lock(path):
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kept.append(file)
    if len(kept) > 50:
        os.close(kept.pop(0))
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

def names_by_the_thousand():
    '''Up to 200,000 names in a run: no process may have to read each.'''
    global made
    uid = os.stat(f"/proc/{victim}").st_uid
    for i in range(made, min(made + 2000, most)):
        os.close(os.open(f"/dev/shm/weir.auto-{uid}-{namespace}-{i}-1", os.O_CREAT | os.O_WRONLY))
    made = min(made + 2000, most)

def listen(path):
    for name in (path, "\\0" + path):
        end = socket.socket(socket.AF_UNIX)
        kept_sockets.append(end)
        if len(kept_sockets) > 50:
            kept_sockets.pop(0).close()
        end.bind(name)
        end.listen()

def through_a_link(path):
    '''Links of our own that lead to files of the server.'''
    own = f"/dev/shm/weir.link-{chance.randrange(10**9)}"
    os.symlink(path, own)
    for act in (write, lock, os.listdir, lambda p: os.truncate(p, 0), lambda p: os.chmod(p, 0o777)):
        attempt(act, own)

kept, kept_sockets, made, most = [], [], 0, min(200_000, int(seconds * 7000))
until = time.monotonic() + seconds
while time.monotonic() < until:
    for name in list(names()):
        path = f"/dev/shm/{name}"
        acts = [
            lambda: write(path),
            lambda: os.truncate(path, 0),
            lambda: os.unlink(path),
            lambda: os.rmdir(path),
            lambda: os.rename(path, path + ".away"),
            lambda: os.mkdir(path, 0o777),
            lambda: os.symlink("/etc/passwd", path),
            lambda: os.link(path, path + ".link"),
            lambda: os.chmod(path, 0o777),
            lambda: lock(path),
            lambda: inside(path),
            lambda: os.mkfifo(path),
            lambda: os.mknod(path, 0o666),
            lambda: os.makedirs(f"{path}/{namespace}-{victim}-1-{'0' * 12}/x", 0o777),
            lambda: os.replace(path + ".away", path),
            lambda: os.chown(path, os.geteuid(), os.getegid()),
            lambda: os.utime(path),
            lambda: listen(path),
            lambda: through_a_link(path),
        ]
        for act in chance.sample(acts, len(acts)):
            attempt(act)
    attempt(names_by_the_thousand)
    for pid in os.listdir("/proc"):
        if pid.isdigit() and os.path.exists(f"/proc/{pid}") and int(pid) != os.getpid():
            try:
                if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                    attempt(os.kill, int(pid), chance.choice([signal.SIGKILL, signal.SIGSTOP]))
                    attempt(lambda: open(f"/proc/{pid}/mem", "r+b").close())
            except OSError:
                pass
print(made, "names", done, "succeeded")
"""


def attacker(victim: int, seconds: float) -> subprocess.Popen[str]:
    """The running program of the other user."""
    seed = int(uuid.uuid4().int % 2**31)
    python = os.path.realpath(sys.executable)
    return subprocess.Popen(
        ["setpriv", f"--reuid={ATTACKER}", f"--regid={ATTACKER}", "--clear-groups",
         "--inh-caps=-all", python, "-I", "-c", ATTACK, str(victim), str(seconds), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
    )  # fmt: skip


def remove_what_is_left() -> None:
    for path in SHM.iterdir():
        if path.lstat().st_uid == ATTACKER:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def said_by(command: str) -> str:
    """The output of a command of Weir among the attacker's files; all of it is printable."""
    done = subprocess.run(
        [sys.executable, "-m", "weir", command],
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert all(line.isprintable() for line in output.split("\n")), output
    assert "forged" not in output
    return output


def test_another_user_changes_nothing(start: Start, tmp_path: Path) -> None:
    server = start()
    attack = attacker(server.process.pid, SECONDS)
    try:
        rounds = 0
        while attack.poll() is None:
            assert rounds < 1000
            path = fresh()
            assert server.hammer(path) == {200: LIMIT, 429: REQUESTS - LIMIT}
            if rounds % 5 == 0:  # new workers find the table
                for pid in server.workers(2)[:2]:
                    os.kill(pid, signal.SIGKILL)
                server.workers(2)
                assert server.hammer(path, 20).get(200, 0) == 0, "a second quota"
                for command in ("tables", "doctor"):
                    assert "Traceback" not in said_by(command)
            rounds += 1
        second = start()  # a server that starts among the attacker's files
        path = fresh()
        assert second.hammer(path) == {200: LIMIT, 429: REQUESTS - LIMIT}
        assert server.process.poll() is None
        assert "Warning" not in server.log.read_text()
    finally:
        attack.kill()
        output = attack.communicate()[0]
        print(output)
        remove_what_is_left()
    assert "succeeded" in output, output
    assert int(output.split()[-2]) > 10, "almost no attack succeeded, so nothing is proved"
