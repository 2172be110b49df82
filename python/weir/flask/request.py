"""The state of one limiter in one request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask.ctx import RequestContext
from flask.wrappers import Response

from weir._core import REFUND, Evaluation, FlaskHooks, RequestBase, Verdict

from . import evaluate
from .check import Check, bits
from .context import current_context
from .errors import RateLimitExceeded
from .limits import Decided, RequestLimit, View
from .store import StoreSwitchedError, refuses_one_key

if TYPE_CHECKING:
    from .check import Entry, Node
    from .plan import Plan
    from .state import AppState


class RequestState(RequestBase):
    """The state, stored in the request context under the limiter's slot.

    Its members are in the core: the plan of the endpoint, the evaluation of the last check, the
    limits that depend on the response, and the time at which the view may run.
    """

    __slots__ = ()

    plan: Plan

    @property
    def state(self) -> AppState:
        return self.plan.state  # type: ignore[return-value]  # a plan declares only a protocol

    # -- called during a request, besides the hooks of the core

    def enter(self, view: View | None) -> None:
        """Check a limited function whose check was not planned."""
        self.run(self.plan.node_for(view, self.defaults_counted))

    def run(self, node: Node) -> None:
        """Make a check.

        :raises RateLimitExceeded: if the request is refused.
        """
        denial = self.state.hooks.run(self, node)
        if denial is not None:
            raise denial

    def finish(self, response: Response) -> None:
        """Write headers that the core cannot write, once there is a response."""
        writer = self.state.headers
        evaluation = self.evaluation
        if evaluation is not None and evaluation.reported >= 0 and writer.kinds:
            writer.write(response.headers, self.decided(evaluation))

    # -- called by the hooks

    def conclude(self, evaluation: Evaluation) -> RateLimitExceeded | None:
        """Process a decision that did not simply pass. Returns the refusal, or ``None``."""
        try:
            return evaluate.conclude(self, evaluation)
        except RateLimitExceeded:
            raise
        except Exception:
            self.swallow()
        return None

    def failed(self, evaluation: Evaluation | None, error: Exception) -> RateLimitExceeded | None:
        """Handle an error of a user's function, or of the store if there is an evaluation."""
        try:
            if evaluation is None or isinstance(error, RateLimitExceeded):
                raise error
            return self._store_failed(evaluation, error)
        except RateLimitExceeded:
            raise
        except Exception:
            self.swallow()
        return None

    def failed_late(self, evaluation: Evaluation | None, error: Exception) -> None:
        """Handle an error of the store after the response was made."""
        self.state.fail_late(error)

    def _store_failed(self, evaluation: Evaluation, error: Exception) -> RateLimitExceeded | None:
        state = self.state
        if isinstance(error, StoreSwitchedError):
            self.run(self.plan.fallback)
            return None
        if refuses_one_key(error):
            # Only this request cannot be decided, because of its key.
            state.count("refused_keys")
            text = "a request is refused, because its limits cannot be decided: %s"
            state.refused_line.error(state.logger, text, error)
            evaluation.refuse()
            return evaluate.conclude(self, evaluation)
        self.evaluation = None
        state.count("store_error")
        state.store.failed(error)
        raise error

    def evaluate_all(self, checks: Sequence[Check]) -> None:
        """Check more limits than fit into one decision, all or nothing."""
        evaluations: list[Evaluation] = []
        for check in checks:
            evaluation = check.gather()
            try:
                evaluation.decide()
            except Exception as error:
                denial = self.failed(evaluation, error)
                if denial is not None:
                    self._take_back(evaluations)
                    raise denial from error
                return
            refused = evaluation.denied & ~check.shadow_mask
            if refused and not self.state.charges_each:
                self._take_back(evaluations, pend=not refused & check.meta_mask)
                evaluations = [evaluation]
                break
            evaluations.append(evaluation)
        # The check that refuses the request comes last, because it raises.
        evaluations.sort(key=lambda e: bool(e.denied & ~e.check.shadow_mask))
        for check in checks:
            self.defaults_counted = self.defaults_counted or check.defaults
        for n, evaluation in enumerate(evaluations, 1):
            denial = self.conclude(evaluation)
            if denial is not None:
                for other in evaluations[n:]:
                    evaluate.remember_pending(self, other, other.denied & other.check.main_mask)
                raise denial
        if len(evaluations) > 1:
            self.evaluation = next((e for e in evaluations if e.reported >= 0), evaluations[0])
            limits = [self.request_limit(e, i) for e in evaluations for i in self.reported(e)]
            self.cache = (self.evaluation, limits)

    def _take_back(self, evaluations: Sequence[Evaluation], *, pend: bool = False) -> None:
        """Give back the charges of checks after another one refused the request.

        pend: limits with ``deduct_when`` stay pending until the response, as in a single check.
        """
        for evaluation in evaluations:
            check: Check = evaluation.check
            responsive = evaluation.parts & check.responsive
            if pend and responsive:
                self.pend(evaluation, responsive)
            # Limits with the role "deferred" were only peeked at.
            kept = evaluation.denied | (responsive if pend else check.deferred)
            evaluation.settle(REFUND, evaluation.parts & check.main_mask & ~kept)

    def pend(self, evaluation: Evaluation, mask: int) -> None:
        """Mark limits as depending on the response."""
        if self.pending is None:
            self.pending = []
        self.pending.append((evaluation, mask))

    def swallow(self) -> None:
        """In an exception handler: raise again, or log the error and let the request pass."""
        state = self.state
        if not state.swallow_errors:
            raise
        state.count("swallowed")
        state.log_swallowed("Failed to rate limit. Swallowing error", True)

    def sleep(self) -> None:
        """Wait for a leaky bucket."""
        wake, self.wake = self.wake, 0.0
        time.sleep(max(0.0, wake - time.time()))

    # -- reporting

    def decided(self, evaluation: Evaluation) -> Decided:
        """The decision for headers and the 429, computed when it is read."""
        return Decided(self, evaluation)

    def reported(self, evaluation: Evaluation) -> list[int]:
        """The limits for headers: those that can refuse the request, or the meta limit."""
        check: Check = evaluation.check
        reported: int = evaluation.reported
        if reported >= check.main_count:
            return [reported]
        return list(bits(evaluation.parts & check.main_mask & ~check.shadow_mask))

    def current_limits(self) -> list[RequestLimit]:
        """The limits of the last check, shortest window first."""
        evaluation = self.evaluation
        if evaluation is None:
            return []
        known = self.cache
        if known is None or known[0] is not evaluation:
            limits = [self.request_limit(evaluation, i) for i in self.reported(evaluation)]
            known = self.cache = (evaluation, limits)
        return list(known[1])

    def current_limit(self) -> RequestLimit | None:
        """The reported limit."""
        evaluation = self.evaluation
        if evaluation is None or evaluation.reported < 0:
            return None
        return self.current_limits()[self.reported(evaluation).index(evaluation.reported)]

    def scope_of(self, evaluation: Evaluation, i: int) -> str:
        """The scope in which a limit counts this request."""
        entry: Entry = evaluation.check.entries[i]
        return entry.scope if entry.scope_of is None else evaluation.scope(i) or ""

    def request_limit(self, evaluation: Evaluation, i: int) -> RequestLimit:
        """The state of a decided limit."""
        entry: Entry = evaluation.check.entries[i]
        verdict: Verdict = evaluation.verdict(i)
        arguments = [evaluation.client(i), self.scope_of(evaluation, i)]
        if self.state.key_prefix:
            arguments.insert(0, self.state.key_prefix)
        return RequestLimit(
            self.state.limiter,
            entry.limit.limit,
            arguments,
            not verdict.allowed,
            entry.limit.shared,
            verdict,
        )


def hooks_for(slot: str) -> FlaskHooks:
    """The hooks of one limiter, which keeps its state in the context's attribute ``slot``."""
    return FlaskHooks(current_context, slot, RequestState)


def request_of(context: RequestContext, key: Any, slot: str) -> RequestState | None:
    """The state of a request; None if the limiter ``key`` does not limit its application."""
    held = getattr(context, slot, None)
    if held is not None:
        assert isinstance(held, RequestState)
        return held
    state: AppState | None = context.app.extensions.get("weir", {}).get(key)
    if state is None or not state.enabled:
        return None
    held = RequestState(state.plan_for(context.request))
    setattr(context, slot, held)
    return held
