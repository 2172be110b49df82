"""Fixed windows that a Memcached server counts.

The item of a window is a number: when it began, and how many hits it has. So one command charges a
hit and returns when the window ends. The item lives some seconds longer than the window. The
first hit after the end replaces it by compare-and-swap.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any, NamedTuple

from .._core import MemcachedCheck
from .base import failure
from .memcached_node import (
    CHARGE,
    PEEK,
    TRIES,
    UNDO,
    Node,
    RefusedError,
    Reply,
    add,
    fetch,
    increase,
    is_number,
    store,
)


class Count(NamedTuple):
    """The hits of a window. If ``left_ns`` is 0, there is no window, or it has ended."""

    number: int
    left_ns: int
    cas: int
    start: int  # identifies the window


def _count(check: MemcachedCheck, reply: Reply, at: float) -> Count:
    if not reply.there:
        return Count(0, 0, 0, 0)
    number, left_ns, start = check.window(reply.number, reply.left, at)
    return Count(number, left_ns, reply.cas, start)


def count_windows(
    node: Node, requests: list[tuple[MemcachedCheck, int]], meta: bool, at: float
) -> list[Count]:
    """Charge windows of one server, or peek, in one round trip. at: the true time.

    meta: whether to use meta commands. Otherwise each limit takes a trip or two.
    """
    if meta:
        harmless = all(what == PEEK for _, what in requests)
        replies = node.exchange([check.command(what, 0, at) for check, what in requests], harmless)
    else:
        replies = [
            _charge_by_incr(node, check, at) if what == CHARGE else _peek(node, check, meta, at)
            for check, what in requests
        ]
    counts = [_count(check, reply, at) for (check, _), reply in zip(requests, replies, strict=True)]
    for i, (check, what) in enumerate(requests):
        if what == CHARGE and counts[i].left_ns == 0:
            counts[i] = _replace(node, check, counts[i], meta, at)
    return counts


def _peek(node: Node, check: MemcachedCheck, meta: bool, at: float) -> Reply:
    if meta:
        return node.exchange([check.command(PEEK, 0, at)], True)[0]
    value, cas = node.use(partial(fetch, name=check.name), True)
    if value is None:
        return Reply(0, 0, 0, False)
    if not is_number(value.strip()):
        raise node.failure(
            RefusedError(f"{check.name.decode()} holds something that is not a counter")
        )
    return Reply(int(value), -1, int(cas or 0), True)


def _charge_by_incr(node: Node, check: MemcachedCheck, at: float) -> Reply:
    first, seconds = check.opened(at)
    for _ in range(TRIES):
        if node.use(partial(add, name=check.name, number=first, seconds=seconds)):
            return Reply(first, -1, 0, True)
        number = node.use(partial(increase, name=check.name, by=check.cost))
        if number is not None:  # otherwise it has expired in between
            return Reply(number, -1, 0, True)
    raise changed_by_others(node, check)


def _replace(node: Node, check: MemcachedCheck, count: Count, meta: bool, at: float) -> Count:
    """Open the next window in place of one that has ended, or charge the one that another opened.

    After the first attempt, this only reads until it stores, so that the hits that arrive together
    do not disturb each other for long.
    """
    first, seconds = check.opened(at)
    for attempt in range(TRIES):
        if count.cas:
            change = partial(_swap, name=check.name, number=first, cas=count.cas, seconds=seconds)
            if node.use(change):
                return _count(check, Reply(first, -1, 0, True), at)
        if attempt > 2:
            time.sleep(random.random() * 0.0005 * min(attempt, 16))
        reply = _peek(node, check, meta, at)
        count = _count(check, reply, at)
        if not reply.there or count.left_ns > 0:
            if meta:
                reply = node.exchange([check.command(CHARGE, 0, at)])[0]
            else:
                reply = _charge_by_incr(node, check, at)
            count = _count(check, reply, at)
            if count.left_ns > 0:
                return count
    raise changed_by_others(node, check)


def changed_by_others(node: Node, check: MemcachedCheck) -> BaseException:
    text = f"{check.name.decode()} was changed by others {TRIES} times"
    return failure(node.name, text, refused=True)


def _swap(client: Any, name: bytes, number: int, cas: int, seconds: int) -> bool:
    return store(client, name, b"%d" % number, b"%d" % cas, seconds)


def _lower(
    node: Node, check: MemcachedCheck, count: Count, by: int, meta: bool, at: float
) -> Count | None:
    """Take ``by`` from a window that has at least as many hits. ``None``: it has changed."""
    if meta:
        reply = node.exchange([check.with_cost(by).command(UNDO, count.cas, at)])[0]
        if not reply.there:
            return None
        lowered = _count(check, reply, at)
        if lowered.number == 0:  # all charges were taken back
            node.exchange([b"md %b C%d\r\n" % (check.name, lowered.cas)])
        return lowered
    _, seconds = check.with_cost(by).opened(at)
    value = b"%d" % (count.start << check.count_bits | count.number - by)
    if count.number == by:
        value = b""
    done = node.use(
        partial(store, name=check.name, value=value, cas=b"%d" % count.cas, seconds=seconds)
    )
    return count._replace(number=count.number - by) if done else None


def refund(node: Node, check: MemcachedCheck, meta: bool, at: float) -> Count:
    """Give back the cost of a check, but not below 0."""
    for attempt in range(TRIES):
        count = _count(check, _peek(node, check, meta, at), at)
        by = min(check.cost, count.number)
        if by == 0:
            return count
        lowered = _lower(node, check, count, by, meta, at)
        if lowered is not None:
            return lowered
        if attempt > 2:
            time.sleep(random.random() * 0.0005 * min(attempt, 16))
    raise changed_by_others(node, check)


def take_back(node: Node, check: MemcachedCheck, count: Count, meta: bool, at: float) -> None:
    """Undo a charge, unless its window has ended or another one has begun."""
    start = count.start
    for _ in range(TRIES):
        if count.cas and _lower(node, check, count, check.cost, meta, at) is not None:
            return
        count = _count(check, _peek(node, check, meta, at), at)
        if count.start != start or count.number < check.cost:
            return
