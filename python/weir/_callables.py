"""Whether a function accepts its arguments, determined without calling it or its attributes.

A user's callable may be a proxy whose every attribute needs a request, or a decorated function that
takes other arguments than the one it wraps. Only plain functions are
examined, so this runs no code of the application and refuses nothing that would work.
"""

from __future__ import annotations

from types import CodeType, FunctionType, MethodType
from typing import Any


def uncallable_reason(function: object, arguments: int = 0) -> str | None:
    """Why ``function`` cannot be called with this many positional arguments; ``None`` if it can.

    >>> def by_user(user): return user
    >>> uncallable_reason(by_user)
    'by_user() needs 1 argument (user) but is called with 0'
    >>> uncallable_reason(by_user, 1)
    >>> uncallable_reason(len)  # a builtin has no readable signature
    >>> uncallable_reason("alice")
    'it cannot be called: str'
    """
    if not callable(function):
        return f"it cannot be called: {type(function).__name__}"
    plain: Any = function
    given = arguments
    if type(plain) is MethodType:
        plain = plain.__func__
        given += 1
    if type(plain) is not FunctionType:
        return None
    code: CodeType = plain.__code__
    names = code.co_varnames
    defaults = len(plain.__defaults__ or ())
    needed = list(names[given : code.co_argcount - defaults])
    keyword_only = names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    needed += [name for name in keyword_only if name not in (plain.__kwdefaults__ or {})]
    if needed:
        what = f"needs {len(needed)} argument{'s' * (len(needed) > 1)} ({', '.join(needed)})"
        return f"{plain.__name__}() {what} but is called with {arguments}"
    takes_any = bool(code.co_flags & 0x04)  # *args
    if given > code.co_argcount and not takes_any:
        most = code.co_argcount - (given - arguments)
        return f"{plain.__name__}() takes at most {most} arguments but is called with {arguments}"
    return None
