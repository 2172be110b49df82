#!/usr/bin/env python3
"""Calls the clients of Redis and Memcached in weir._core, with a server that sends random replies.

Replies are valid, garbled, cut, in pieces of any size, too long, or followed by the end of the
connection; signals interrupt the waits, and their handlers may raise. No call may crash, hang, or
return an invalid answer. Under AddressSanitizer, as script/fuzz-core runs it, a read behind the end
of a buffer is a crash, too.

WEIR_SECONDS: how long (default 10). WEIR_SEED: repeats a run; it is printed first.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

import weir
from weir import Limit, _core

SECONDS = float(os.environ.get("WEIR_SECONDS", "10"))
SEED = int(os.environ.get("WEIR_SEED", "0")) or random.SystemRandom().getrandbits(32)

#: The deadline of an exchange, and the time after which it is considered as hanging, in seconds.
DEADLINE, PATIENCE = 0.05, 30.0

#: Exceptions that may be raised: for closed connections, invalid replies, signal handlers.
EXPECTED = (OSError, ValueError, InterruptedError)


class HandlerError(Exception):
    """Raised by a signal's handler."""


class Peer:
    """The server: sends the given bytes once it has received a request."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._pieces: list[bytes] = []
        self._ends = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def prepare(self, pieces: list[bytes], ends: bool) -> None:
        self._pieces, self._ends = pieces, ends
        self._ready.set()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._theirs as sock:
            self._ready.wait(PATIENCE)
            if not sock.recv(1 << 16):
                return
            for piece in self._pieces:
                sock.sendall(piece)
            if not self._ends:
                sock.recv(1 << 20)

    def close(self) -> None:
        self._ready.set()
        with contextlib.suppress(OSError):
            self.ours.shutdown(socket.SHUT_RDWR)
        self.ours.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the peer hangs"


class Fuzzer:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.codec = _core.RedisCodec(b"weir")
        self.answers = 0

    # -- commands and replies

    def limits(self) -> list[Limit]:
        strategies = list(weir.strategies.STRATEGIES)
        return [
            Limit(
                self.chance.choice([1, 5, 1000, 2**53, 2**63 - 1]),
                1,
                self.chance.choice(["second", "hour", "day"]),
                strategy=self.chance.choice(strategies),
            )
            for _ in range(self.chance.choice([1, 1, 2, 3, 32]))
        ]

    def command(self, limits: list[Limit]) -> Any:
        key = self.chance.choice(["a", "10.0.0.1", "x" * 300, "é/%"])
        if self.chance.random() < 0.1:
            return self.codec.clear(limits, key)
        return self.codec.decide(limits, key, None, self.chance.randrange(4))

    def number(self) -> float:
        return self.chance.choice(
            [0.0, 1.0, -1.0, 1.7e15, 1e300, float("nan"), float("inf"), -1e300, 2.0**53, 0.5]
        )

    def verdicts(self, count: int) -> bytes:
        chance = self.chance
        sane = chance.random() < 0.5
        body = struct.pack("<d", 1.7e15 if sane else self.number())
        for _ in range(count):
            if sane:
                body += struct.pack("<Bdd", chance.randrange(2), 1000.0, 0.0)
            else:
                body += struct.pack("<Bdd", chance.randrange(256), self.number(), self.number())
        for _ in range(count):
            left = 0 if sane else chance.randrange(2**64)
            body += struct.pack("<Qd", left, 1.7e15 if sane else self.number())
        return b"$%d\r\n%b\r\n" % (len(body), body)

    def reply(self, count: int) -> bytes:
        chance = self.chance
        match chance.randrange(12):
            case 0:
                return chance.randbytes(chance.randrange(200))
            case 1:
                return chance.choice(
                    [
                        b":1\r\n",
                        b"+OK\r\n",
                        b"$-1\r\n",
                        b"*-1\r\n",
                        b"_\r\n",
                        b"#t\r\n",
                        b",1.5\r\n",
                    ]
                )
            case 2:
                text = chance.choice([b"ERR x", b"NOSCRIPT no", b"MOVED 1 a:1", b"\xff\xfe" * 9])
                return b"-" + text * chance.choice([1, 1, 9000]) + chance.choice([b"\r\n", b""])
            case 3:
                length = chance.choice([0, 5, 2**31, 2**63, 2**64, 10**30, -5])
                return b"%b%d\r\n" % (
                    chance.choice([b"$", b"*", b">", b"!", b"%", b"~", b"="]),
                    length,
                )
            case 4:
                return b"*1\r\n" * chance.choice([1, 10, 40_000]) + b":1\r\n"
            case 5:
                return b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n" * 3 + self.verdicts(count)
            case 6:
                return self.verdicts(chance.randrange(40))
            case 7:
                return chance.randbytes(10) * chance.choice([100, 30_000])
            case 8:
                return self.mc_reply()
        data = bytearray(self.verdicts(count))
        for _ in range(chance.choice([0, 0, 1, 3])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        return bytes(data)

    def mc_reply(self) -> bytes:
        chance = self.chance
        lines = [
            b"HD t10 c5 W\r\n", b"EN\r\n", b"NF\r\n", b"NS\r\n", b"EX\r\n", b"MN\r\n",
            b"VA 1 t-1 c18446744073709551615\r\n5\r\n", b"VA 20 t9\r\n18446744073709551616\r\n",
            b"VA 99999999999\r\n", b"CLIENT_ERROR bad\r\n", b"SERVER_ERROR out of memory\r\n",
            b"HD " + b"t" * 3000 + b"\r\n", b"VA -1\r\n\r\n",
        ]  # fmt: skip
        data = bytearray(b"".join(chance.choice(lines) for _ in range(chance.randrange(1, 6))))
        for _ in range(chance.choice([0, 1, 4])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data)

    def pieces(self, data: bytes) -> list[bytes]:
        size = self.chance.choice([1, 7, 1000, 1 << 20])
        if len(data) > 5000:
            size = max(size, 2000)
        return [data[at : at + size] for at in range(0, len(data), size)]

    # -- calls

    def check(self, answer: Any, limits: list[Limit]) -> None:
        assert answer is None or isinstance(answer, bool | str | _core.Decision), answer
        self.answers += answer is not None
        if isinstance(answer, _core.Decision):
            assert len(answer) == len(limits)
            for verdict, limit in zip(answer, limits, strict=True):
                assert 0 <= verdict.remaining <= (limit.burst or limit.amount)
                assert verdict.reset_at >= 0
                assert verdict.retry_after >= 0

    def exchange(self) -> None:
        chance = self.chance
        limits = self.limits()
        command = self.command(limits)
        peer = Peer()
        peer.prepare(self.pieces(self.reply(len(limits))), chance.random() < 0.7)
        message = chance.choice([None, None, command.whole(), b"", bytearray(b"x" * 100_000)])
        began = time.monotonic()
        main = threading.current_thread() is threading.main_thread()
        try:
            _may_raise[0] = _may_raise[0] or main
            answer = command.exchange(peer.ours.fileno(), DEADLINE, message)
            self.check(answer, limits)
        except (*EXPECTED, HandlerError):
            pass
        finally:
            if main:
                _may_raise[0] = False
            assert time.monotonic() - began < PATIENCE, "an exchange does not end"
            peer.close()

    def read(self) -> None:
        """Parses the same bytes without a socket."""
        limits = self.limits()
        command = self.command(limits)
        data = self.reply(len(limits))
        for kind in (bytes, bytearray, memoryview):
            with contextlib.suppress(*EXPECTED, HandlerError):
                self.check(command.read(kind(data)), limits)
        for wrong in (self.chance.randrange(-3, 3), len(data), len(data) + 1, 2**62):
            with contextlib.suppress(*EXPECTED, HandlerError, IndexError, OverflowError):
                _core.memcached_read(self.mc_reply(), wrong)

    def misuse(self) -> None:
        """Invalid arguments."""
        command = self.command(self.limits())
        wrong = [None, -1, 10**6, 2**70, "x", 1.5, object(), [], float("nan")]
        arguments = [self.chance.choice(wrong) for _ in range(self.chance.randrange(5))]
        if arguments[1:2] == [None]:  # without a deadline
            arguments[1] = 0.01
        with contextlib.suppress(*EXPECTED, HandlerError, TypeError, OverflowError):
            command.exchange(*arguments)
        with contextlib.suppress(*EXPECTED, HandlerError, TypeError):
            command.read(*arguments[:1])

    def run(self, end: float) -> None:
        while time.monotonic() < end:
            self.exchange()
            for _ in range(20):
                self.read()
            self.misuse()


#: Whether the main thread is in an exchange; the handler raises only there.
_may_raise = [False]


def on_signal(*_: Any) -> None:
    if _may_raise[0] and random.random() < 0.1:
        _may_raise[0] = False
        raise HandlerError


def main() -> None:
    print(f"WEIR_SEED={SEED}", flush=True)
    end = time.monotonic() + SECONDS
    signal.signal(signal.SIGALRM, on_signal)
    fuzzers = [Fuzzer(SEED + i) for i in range(3)]
    failures: list[BaseException] = []

    def run(fuzzer: Fuzzer) -> None:
        try:
            fuzzer.run(end)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(fuzzer,)) for fuzzer in fuzzers[1:]]
    for thread in threads:
        thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    while time.monotonic() < end and not failures:
        # The handler may raise at any point of this thread; only the exchange is tested.
        with contextlib.suppress(HandlerError):
            fuzzers[0].run(end)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for thread in threads:
        thread.join(PATIENCE)
    print(f"{sum(fuzzer.answers for fuzzer in fuzzers)} answers", flush=True)
    sys.exit(bool(failures) or any(thread.is_alive() for thread in threads))


if __name__ == "__main__":
    main()
