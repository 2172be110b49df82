"""The strategies a second time: naive models, by exact fractions and lists.

They follow the words of the documentation and not the C sources. Times are whole nanoseconds.
``tests/timelines.py`` writes the table of timelines with them; random tests compare with them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple
from zoneinfo import ZoneInfo

S = 10**9
MAX = 2**63 - 1
#: A clock that is behind by less is taken for a late reader, not for a step back.
SKEW = S // 10
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 2592000, "year": 31104000}


class Fixed:
    def __init__(self, amount, period, burst, delay):
        self.amount, self.period, self.used, self.end = amount, period, 0, 0
        self.limit = amount

    def settle(self, now):
        if now >= self.end:
            self.used = 0
        elif self.end - now > self.period:
            self.end = now + self.period

    def allowed(self, now, cost):
        return cost == 0 or self.used + cost <= self.amount

    def charge(self, now, cost):
        if self.used == 0:
            self.end = now + self.period
        self.used += cost

    def refund(self, now, cost):
        self.used = max(0, self.used - cost)

    def when(self, now, cost):
        return self.end

    def remaining(self, now):
        return self.amount - self.used

    def reset(self, now):
        return self.end if self.used else now

    def delay(self, now, cost):
        return 0


class Moving(Fixed):
    """The log as a list of (time, hits)."""

    def __init__(self, amount, period, burst, delay):
        super().__init__(amount, period, burst, delay)
        self.log = []

    def settle(self, now):
        newest = max((t for t, _ in self.log), default=0)
        self.at = now
        if newest + self.period <= now:
            self.log = []
        elif now < newest <= now + SKEW:
            self.at = newest
        else:
            self.log = [(min(t, now), n) for t, n in self.log]
        self.log = [(t, n) for t, n in self.log if t + self.period > self.at]

    def live(self):
        return sum(n for _, n in self.log)

    def allowed(self, now, cost):
        return cost == 0 or self.live() + cost <= self.amount

    def charge(self, now, cost):
        self.log.append((self.at, cost))

    def refund(self, now, cost):
        while cost and self.log:
            t, n = self.log.pop()
            if n > cost:
                self.log.append((t, n - cost))
            cost = max(0, cost - n)

    def when(self, now, cost):
        left = self.live()
        for t, n in self.log:
            left -= n
            if left + cost <= self.amount:
                return t + self.period
        raise AssertionError

    def remaining(self, now):
        return self.amount - self.live()

    def reset(self, now):
        return self.log[0][0] + self.period if self.log else now


class Sliding(Fixed):
    def __init__(self, amount, period, burst, delay):
        super().__init__(amount, period, burst, delay)
        self.index, self.count = 0, {}

    def settle(self, now):
        index = now // self.period
        if not self.count:
            self.index = index
        early = self.index == index + 1 and self.index * self.period - now <= SKEW
        if self.index > index and not early:
            self.count = {index: min(self.amount, sum(self.count.values()))}
            self.index = index
        elif not early:
            self.index = index
            self.count = {i: n for i, n in self.count.items() if i >= index - 1}

    def use(self, now):
        now = max(now, self.index * self.period)
        index, into = divmod(now, self.period)
        share = Fraction(self.period - into, self.period)
        return self.count.get(index, 0) + self.count.get(index - 1, 0) * share

    def allowed(self, now, cost):
        return cost == 0 or self.use(now) + cost <= self.amount

    def charge(self, now, cost):
        self.count[self.index] = self.count.get(self.index, 0) + cost

    def refund(self, now, cost):
        for index in (self.index, self.index - 1):
            part = min(cost, self.count.get(index, 0))
            cost -= part
            self.count[index] = self.count.get(index, 0) - part
        self.count = {i: n for i, n in self.count.items() if n}

    def when(self, now, cost):
        low, high = now, now + SKEW + 2 * self.period
        while low < high:
            middle = (low + high) // 2
            if self.use(middle) + cost <= self.amount:
                high = middle
            else:
                low = middle + 1
        return low

    def remaining(self, now):
        return max(0, floor(self.amount - self.use(now)))

    def reset(self, now):
        return self.when(now, self.remaining(now) + 1) if self.count else now


class Token(Fixed):
    def __init__(self, amount, period, burst, delay):
        super().__init__(amount, period, burst, delay)
        self.limit = burst or amount
        self.size = self.limit if amount else 0
        self.token = Fraction(period, amount) if amount else Fraction(0)
        self.tat = Fraction(0)

    def farthest(self):
        return self.size * self.token + self.period - self.token

    def settle(self, now):
        self.tat = min(self.tat, now + self.farthest())
        if self.tat <= now:
            self.tat = Fraction(0)

    def ahead(self, now):
        return max(Fraction(0), self.tat - now)

    def allowed(self, now, cost):
        return cost == 0 or (
            cost <= self.size and self.ahead(now) + cost * self.token <= self.size * self.token
        )

    def charge(self, now, cost):
        self.tat = max(self.tat, Fraction(now)) + cost * self.token

    def refund(self, now, cost):
        self.tat = max(Fraction(now), self.tat - cost * self.token) if self.tat else self.tat
        self.settle(now)

    def when(self, now, cost):
        return now + ceil(self.ahead(now) + (cost - self.size) * self.token)

    def remaining(self, now):
        if not self.amount:
            return 0
        return max(0, floor(self.size - self.ahead(now) / self.token))

    def reset(self, now):
        return now + ceil(self.ahead(now))


class Leaky(Token):
    def __init__(self, amount, period, burst, delay):
        super().__init__(amount, period, 0, delay)
        self.most = delay

    def farthest(self):
        return self.most + self.period

    def allowed(self, now, cost):
        return cost == 0 or (cost <= self.amount and self.ahead(now) <= self.most)

    def when(self, now, cost):
        return now + ceil(self.ahead(now) - self.most)

    def remaining(self, now):
        if not self.amount or self.ahead(now) > self.most:
            return 0
        return min(self.amount, floor((self.most - self.ahead(now)) / self.token) + 1)

    def delay(self, now, cost):
        return ceil(self.ahead(now)) if cost else 0


class Calendar(Fixed):
    """Windows from midnight to midnight, by datetime and zoneinfo."""

    def __init__(self, amount, multiples, unit, zone):
        super().__init__(amount, multiples * UNITS[unit] * S, 0, 0)
        self.multiples, self.unit, self.name = multiples, unit, zone
        if zone[0] == "+":
            hours, minutes = map(int, zone[1:].split(":"))
            self.zone = timezone(timedelta(hours=hours, minutes=minutes))
        else:
            self.zone = ZoneInfo(zone)

    def start(self, number):
        """When the window of that number starts."""
        n, unit = number * self.multiples, self.unit
        if unit == "day":
            first = date(1969, 12, 29) if self.multiples % 7 == 0 else date(1970, 1, 1)
            first += timedelta(days=n)
        elif unit == "month":
            first = date(n // 12, n % 12 + 1, 1)
        elif unit == "year":
            first = date(n, 1, 1)
        else:
            return number * self.period
        return int(datetime(first.year, first.month, first.day, tzinfo=self.zone).timestamp()) * S

    def number(self, now):
        local = datetime.fromtimestamp(now // S, self.zone)
        if self.unit == "day":
            days = local.date().toordinal() - date(1970, 1, 1).toordinal()
            return (days + 3 * (self.multiples % 7 == 0)) // self.multiples
        if self.unit == "month":
            return (local.year * 12 + local.month - 1) // self.multiples
        if self.unit == "year":
            return local.year // self.multiples
        return now // self.period

    def settle(self, now):
        number = self.number(now)
        self.ends = self.start(number + 1)
        if self.end <= now:
            self.used = 0
        elif self.used and self.end == self.start(number + 2) and self.ends - now <= SKEW:
            self.ends = self.end  # others have opened the next window
        self.end = self.ends

    def charge(self, now, cost):
        self.used += cost

    def when(self, now, cost):
        return self.ends


MODELS = {
    "fixed-window": Fixed,
    "moving-window": Moving,
    "sliding-window-counter": Sliding,
    "token-bucket": Token,
    "leaky-bucket": Leaky,
    "calendar-window": Calendar,
}
#: The strategies that need no time zone.
ZONELESS = [name for name in MODELS if name != "calendar-window"]


class Answer(NamedTuple):
    """What a limit must answer, in nanoseconds; ``retry_after`` :data:`MAX`: never."""

    allowed: bool
    remaining: int
    reset_at: int
    retry_after: int
    delay: int


def saved(model):
    """The state of a model, to be put back by ``model.__dict__.update()``."""
    return {k: v.copy() if isinstance(v, (list, dict)) else v for k, v in model.__dict__.items()}


def apply(model, now, op, cost=1):
    """One request: ``hit`` charges if allowed, ``test`` changes nothing, ``refund`` gives back."""
    before = saved(model)
    model.settle(now)
    allowed, retry, delay = True, 0, 0
    if op == "refund":
        model.refund(now, cost)
    else:
        allowed = model.allowed(now, cost)
        if not allowed:
            size = getattr(model, "size", model.amount)
            retry = MAX if cost > size else min(MAX, model.when(now, cost) - now)
        else:
            delay = min(MAX, model.delay(now, cost))
            if op == "hit" and cost:
                model.charge(now, cost)
    answer = Answer(allowed, model.remaining(now), min(MAX, model.reset(now)), retry, delay)
    if op == "test":
        model.__dict__.clear()
        model.__dict__.update(before)
    return answer
