"""Prepared checks, and what Flask calls. Only types: the names are in ``weir._core``."""

from collections.abc import Callable, Sequence
from typing import Any, final

from typing_extensions import Self

from ._core_decision import Decision, Verdict
from ._core_limit import Limit
from ._core_table import Table

class PreparedCheck:
    """The limits of one check, prepared once; each request adds its own data."""

    evaluated: int
    observed: int
    peeked: int
    deferred: int
    shadows: int
    responsive: int
    mode: int
    defaults: bool
    headers: tuple[tuple[Any, ...], ...] | None
    store: Any
    table: Table

    def __new__(
        cls,
        table: Table,
        store: Any,
        parts: Sequence[Any],
        prefix: str,
        on_empty: Callable[[int, str], object],
        main: int,
        mode: int,
        labels: int,
        evaluated: int,
        lenient: int,
        unshared: int,
        observed: int,
        /,
    ) -> Self:
        """Prepare 1 to 32 parts.

        A part of a prepared check: a tuple of (limit, key_func, after, cost, role, exempt_when,
        scope_of, cost_of, deduct_when). ``after`` follows the client in the key of the counter.
        Functions that do not apply are ``None``.
        """
    def evaluate(self) -> Evaluation:
        """Gather and decide."""
    def gather(self) -> Evaluation:
        """Call the functions that return client and cost; decide nothing."""

@final
class Evaluation:
    """The evaluation of a prepared check for one request. Bit i of a mask is part i."""

    @property
    def check(self) -> Any: ...
    @property
    def parts(self) -> int: ...
    @property
    def denied(self) -> int: ...
    @property
    def reported(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def rule(self) -> str: ...
    @property
    def delay(self) -> float: ...
    def decide(self) -> bool:
        """Decide with the check's store. Returns whether all parts allow."""
    def add(self, parts: int, /) -> int:
        """Gather more parts for :meth:`settle`. Returns the mask of the parts that apply."""
    def settle(self, mode: int, parts: int, unit_cost: bool = False, /) -> None:
        """Charge parts (``EACH``) or give back (``REFUND``); keep the verdicts that allow.

        unit_cost: use a cost of 1.
        """
    def decide_on(self, table: object, mode: int, parts: int, settling: bool, /) -> None:
        """Decide parts on a table."""
    def rule_match(self, parts: int, /) -> bool:
        """Return whether a rule of the table decides about the clients."""
    def record(self, parts: int, shadow: bool, settled: bool = False, /) -> None:
        """Count decisions of another store in the table's statistics."""
    def checks(self, parts: int, /) -> tuple[list[int], list[Limit], list[str], list[int]]:
        """Return indices, limits, keys and costs of parts."""
    def keep(self, parts: list[int] | int, decision: Decision, settling: bool, /) -> bool:
        """Copy the verdicts of a decision into the parts. Returns whether it allows.

        parts: the indices of the parts in the decision's order, or their mask.
        """
    def verdict(self, index: int, /) -> Verdict: ...
    def client(self, index: int, /) -> str: ...
    def scope(self, index: int, /) -> str | None: ...
    def key(self, index: int, /) -> str: ...
    def cost(self, index: int, /) -> int: ...
    def refuse(self) -> None:
        """Make every main part deny, without a time at which it allows again."""
    def report(self, index: int, /) -> None:
        """Report this part to the client."""
    def write_headers(self, pairs: list[tuple[str, str]], names: tuple[Any, ...], /) -> bool:
        """Append the headers of the reported part. Returns whether they were appended."""

class RequestBase:
    """The state of one request for one limiter."""

    @property
    def plan(self) -> Any: ...

    pending: list[Any] | None
    cache: Any
    defaults_counted: bool
    wake: float
    evaluation: Evaluation | None

    def __new__(cls, plan: object, /) -> Self: ...

class PlanBase:
    """The plan of one endpoint and method."""

    function: Any
    filters: list[Callable[[], bool]]
    bare: Any
    before: Any
    view: Any
    at_call: Any
    at_call_counted: Any

@final
class FlaskHooks:
    """The hooks that Flask calls before and after requests."""

    def __new__(
        cls, current: Callable[[], object], slot: str, request_type: type[RequestBase], /
    ) -> Self: ...
    def before(self, plans: dict[str, Any], views: dict[str, Any], /) -> Any:
        """Begin the request and run the check before dispatch.

        Returns ``None``, the exception that refuses the request, or ``False`` if the request has
        no plan.
        """
    def begin(self, context: object, plan: PlanBase, /) -> Any:
        """As :meth:`before`, with a given plan."""
    def run(self, request: RequestBase, node: object, /) -> Any:
        """Run one check of a request. Returns ``None`` or the exception that refuses it."""
    def call(self, view: object, /) -> Any:
        """Run the check of a limited function.

        Returns the time at which the function may run (0.0: immediately), the exception that
        refuses the request, or ``None`` if the check was not planned.
        """
    def after(self, response: object, /) -> Any:
        """Write headers. Returns the request if Python code has more to do for it, else None."""

@final
class RemoteAddress:
    """A key function. Returns a plain IPv4 address, else the result of ``otherwise``."""

    def __new__(cls, current: Callable[[], object], otherwise: Callable[[], str], /) -> Self: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> str: ...
