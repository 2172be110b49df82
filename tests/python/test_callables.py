"""The early check of a callable reports what is wrong, and never calls it."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from weir._callables import uncallable_reason


class Unbound:
    """A proxy outside of a request: every access raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no request, so no {name}")

    def __call__(self) -> str:
        raise RuntimeError("no request")

    def __bool__(self) -> bool:
        raise RuntimeError("no request")

    __repr__ = __call__


UNBOUND = Unbound()


def by_user(user: object = UNBOUND) -> str:
    return ""


def by_name(name: object, *, also: object) -> str:
    return ""


def any_number(*names: object, **more: object) -> str:
    return ""


@functools.wraps(by_name)
def wrapper() -> str:
    return by_name("alice", also=1)


class Keys:
    def __init__(self) -> None:
        self.by_method = self.method

    def method(self) -> str:
        return ""


@pytest.mark.parametrize(
    "works",
    [
        by_user,
        any_number,
        wrapper,
        Keys().method,
        str,
        len,
        dict,
        functools.partial(by_name, 1, also=2),
    ],
    ids=lambda function: type(function).__name__,
)
def test_what_may_work_is_let_be(works: object) -> None:
    assert uncallable_reason(works) is None


def test_a_proxy_is_not_called() -> None:
    assert uncallable_reason(UNBOUND) is None


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (by_name, 0, "by_name() needs 2 arguments (name, also) but is called with 0"),
        (by_name, 1, "by_name() needs 1 argument (also) but is called with 1"),
        (Keys.method, 0, "method() needs 1 argument (self) but is called with 0"),
        (Keys().method, 1, "method() takes at most 0 arguments but is called with 1"),
        (wrapper, 1, "by_name() takes at most 0 arguments but is called with 1"),
        ("alice", 0, "it cannot be called: str"),
        (None, 0, "it cannot be called: NoneType"),
    ],
)
def test_a_callable_that_cannot_work_is_an_error(
    function: object, arguments: int, text: str
) -> None:
    assert uncallable_reason(function, arguments) == text
