"""The limits library: parsing, strategies, storages, statistics."""

import os

import limits
from flask import Flask, jsonify
from limits import (
    RateLimitItemPerHour,
    RateLimitItemPerSecond,
    parse,
    parse_many,
    storage,
    strategies,
)
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage
from limits.util import WindowStats

app = Flask(__name__)
memory = MemoryStorage()
window = strategies.FixedWindowRateLimiter(memory)
moving = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
sliding = strategies.STRATEGIES["sliding-window-counter"](storage.storage_from_string("memory://"))
one_per_hour = limits.parse("1/hour")


@app.route("/parsing")
def parsing():
    many = parse_many("5/second; 10 per 2 minutes, 100|day".replace("|", "/"))
    hourly = RateLimitItemPerHour(3, 2, namespace="mail")
    return jsonify(
        many=[str(item) for item in many],
        expiry=[item.get_expiry() for item in many],
        key=hourly.key_for("test", "foo", 7),
        parts=[hourly.amount, hourly.multiples, hourly.GRANULARITY.name, hourly.namespace],
        same=parse("1 per second") == RateLimitItemPerSecond(1, 1),
        sorted=[str(item) for item in sorted(parse_many("1/day;1/second;1/hour"))],
        is_item=isinstance(hourly, limits.RateLimitItem),
        hashable=len({parse("1/hour"), parse("1 per hour"), one_per_hour}),
    )


@app.route("/hits")
def hits():
    results = []
    for limiter in (window, moving, sliding):
        limiter.storage.reset()
        results.append(
            [
                limiter.test(one_per_hour, "ns", "foo"),
                limiter.hit(one_per_hour, "ns", "foo"),
                limiter.test(one_per_hour, "ns", "foo"),
                limiter.hit(one_per_hour, "ns", "foo"),
                limiter.hit(one_per_hour, "ns", "bar"),
                limiter.hit(parse("5/day"), "cost", cost=3),
                limiter.test(parse("5/day"), "cost", cost=3),
                limiter.get_window_stats(parse("5/day"), "cost").remaining,
                isinstance(limiter.get_window_stats(one_per_hour, "ns", "foo"), WindowStats),
            ]
        )
        limiter.clear(one_per_hour, "ns", "foo")
        results[-1].append(limiter.hit(one_per_hour, "ns", "foo"))
    return jsonify(results)


@app.route("/errors")
def errors():
    results = []
    for make in (
        lambda: parse("ten per hour"),
        lambda: parse("10 per fortnight"),
        lambda: storage.storage_from_string("nowhere://"),
    ):
        try:
            make()
        except ConfigurationError:
            results.append("configuration")
        except ValueError:
            results.append("value")
    return jsonify(results=results, healthy=memory.check())


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
