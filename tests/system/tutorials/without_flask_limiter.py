"""The limits library by itself, in a custom decorator."""

import functools
import os
import time

from flask import Flask, jsonify, request
from limits import RateLimitItemPerMinute, parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

app = Flask(__name__)
moving = MovingWindowRateLimiter(MemoryStorage())
fixed = FixedWindowRateLimiter(storage_from_string("memory://"))
two_per_minute = RateLimitItemPerMinute(2)


def rate_limit(limiter, item):
    def decorator(view):
        @functools.wraps(view)
        def wrapper(*args, **kwargs):
            who = (request.remote_addr, request.path)
            if not limiter.hit(item, *who):
                reset, remaining = limiter.get_window_stats(item, *who)
                return jsonify(retry_in=round(reset - time.time()), remaining=remaining), 429
            return view(*args, **kwargs)

        return wrapper

    return decorator


@app.route("/moving")
@rate_limit(moving, two_per_minute)
def with_moving_window():
    return "moving"


@app.route("/fixed")
@rate_limit(fixed, parse("1/hour"))
def with_fixed_window():
    return "fixed"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
