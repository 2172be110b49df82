"""Settings and arguments: not given, given as text, given wrongly, and which wins."""

from __future__ import annotations

import enum
import inspect
import logging
from typing import Any

import pytest
from flask import Flask, current_app
from werkzeug.local import LocalProxy

import weir
from flask_views import hello
from weir.flask import ConfigurationError, HeaderNames, Limit, Limiter
from weir.flask.constants import ConfigVars
from weir.flask.settings import Reader, header_of
from weir.flask.util import get_remote_address


def app_with(arguments: dict[str, Any] | None = None, **settings: Any) -> Flask:
    app = Flask("shop")
    app.config.update({f"RATELIMIT_{name}": value for name, value in settings.items()})
    arguments = {"key_func": get_remote_address, "storage_uri": "memory://", **(arguments or {})}
    limiter = Limiter(app=app, **arguments)
    app.add_url_rule("/", "index", limiter.limit("1 per minute")(lambda: "hello"))
    app.add_url_rule("/free", "free", lambda: "hello")
    return app


def answers(app: Flask, path: str = "/") -> list[int]:
    return [app.test_client().get(path).status_code for _ in range(2)]


def proxy() -> Any:
    """Unbound: every access outside of a request raises."""
    return LocalProxy(lambda: current_app.config["WHO"])


SETTINGS = sorted(name.removeprefix("RATELIMIT_") for name in ConfigVars.known())

ARGUMENTS = [
    name
    for name in inspect.signature(Limiter).parameters
    if name not in ("first", "second", "key_func", "app", "storage_uri", "enabled")
]


@pytest.mark.parametrize("value", [None, "", " "])
@pytest.mark.parametrize("setting", SETTINGS)
def test_none_and_empty_settings_are_not_given(setting: str, value: Any) -> None:
    assert answers(app_with({"storage_uri": None}, **{setting: value})) == [200, 429]


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_none_and_empty_arguments_are_not_given(argument: str, value: Any) -> None:
    assert answers(app_with({argument: value})) == [200, 429]


FLAGS = [
    "SHADOW",
    "STRICT",
    "SWALLOW_ERRORS",
    "PROBLEM_JSON",
    "REVEAL_KEYS",
    "DEFAULTS_PER_METHOD",
    "APPLICATION_PER_METHOD",
    "IN_MEMORY_FALLBACK_ENABLED",
    "HEADERS_ENABLED",
]


@pytest.mark.parametrize("text", ["False", "false", "0", "off", " No ", "f", 0, False])
@pytest.mark.parametrize("setting", FLAGS)
def test_texts_that_mean_false(setting: str, text: Any) -> None:
    app = app_with(**{setting: text})
    response = app.test_client().get("/")
    assert "X-RateLimit-Limit" not in response.headers
    assert app.test_client().get("/").status_code == 429


@pytest.mark.parametrize("text", ["True", "1", "on", "YES", 1, True])
def test_texts_that_mean_true(text: Any) -> None:
    assert answers(app_with(SHADOW=text)) == [200, 200]
    assert "X-RateLimit-Limit" in app_with(HEADERS_ENABLED=text).test_client().get("/").headers


@pytest.mark.parametrize("text", ["False", "0", "off"])
def test_enabled_is_read_as_other_flags(text: str) -> None:
    app = app_with(ENABLED=text)
    assert answers(app) == [200, 200]
    assert app.config["RATELIMIT_ENABLED"] is False
    assert app_with(ENABLED="").config["RATELIMIT_ENABLED"] is True


WRONG = [
    *[(flag, "maybe", "True or False") for flag in FLAGS if flag != "HEADERS_ENABLED"],
    *[(flag, 2, "True or False") for flag in FLAGS if flag != "HEADERS_ENABLED"],
    ("ENABLED", "maybe", "True or False"),
    ("HEADERS_ENABLED", 3.5, "draft-11"),
    ("HEADERS_ENABLED", "maybe", "draft-11"),
    ("HEADERS_ENABLED", "x-ratelimit, drft-11", "draft-11"),
    ("STRATEGY", "fixed", "one of fixed-window"),
    ("STRATEGY", 7, "one of fixed-window"),
    ("STORAGE_URI", 7, "a text"),
    ("STORAGE_OPTIONS", "keys=7", "a dict"),
    ("STORAGE_OPTIONS", ["keys"], "a dict"),
    ("KEY_PREFIX", 7, "a text"),
    ("ON_BREACH_CALLBACK", "log_it", "a function"),
    ("ON_BREACH_CALLBACK", lambda: None, "takes at most 0"),
    ("ON_META_BREACH_CALLBACK", 1, "a function"),
    ("REQUEST_IDENTIFIER", "x", "a function"),
    ("DEFAULTS_EXEMPT_WHEN", "x", "a function"),
    ("DEFAULTS_EXEMPT_WHEN", lambda request: True, "needs 1 argument"),
    ("DEFAULTS_DEDUCT_WHEN", lambda: True, "takes at most 0"),
    ("APPLICATION_EXEMPT_WHEN", "no", "a function"),
    ("APPLICATION_DEDUCT_WHEN", [], "a function"),
    ("DEFAULTS_COST", "two", "a whole number"),
    ("DEFAULTS_COST", -1, "a whole number"),
    ("DEFAULTS_COST", True, "a whole number"),
    ("APPLICATION_COST", 1.5, "a whole number"),
    ("DEFAULT", 10, "10 per minute"),
    ("DEFAULT", [10], "10 per minute"),
    ("DEFAULT", {"a": 1}, "10 per minute"),
    ("META", 10, "10 per minute"),
    ("APPLICATION", b"10/minute", "10 per minute"),
    ("IN_MEMORY_FALLBACK", object(), "10 per minute"),
    ("HEADER_LIMIT", "X Limit", "name of a header"),
    ("HEADER_RESET", "X-Reset: 1\r\nX-More", "name of a header"),
    ("HEADER_REMAINING", 7, "name of a header"),
    ("HEADER_RETRY_AFTER_VALUE", "seconds", "delta-seconds, http-date"),
    ("ON_STORE_ERROR", "ignore", "one of raise"),
    ("IPV6_PREFIX", 129, "0 to 128"),
    ("IPV6_PREFIX", "/64", "0 to 128"),
    ("ALLOW_UNKNOWN", 3, "prefixes"),
]


@pytest.mark.parametrize(("setting", "value", "text"), WRONG)
def test_what_cannot_be_meant_is_an_error_at_the_start(setting: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        app_with({"storage_uri": None}, **{setting: value})
    message = str(error.value)
    assert setting in message
    assert text in message
    if isinstance(value, str):
        assert repr(value) in message
    assert len(message) < 400


def test_texts_of_numbers_are_numbers() -> None:
    app = app_with(DEFAULT="4/minute", DEFAULTS_COST="2", IPV6_PREFIX="56")
    assert [app.test_client().get("/free").status_code for _ in range(3)] == [200, 200, 429]
    assert app.config["RATELIMIT_IPV6_PREFIX"] == 56


def test_an_empty_setting_leaves_the_argument() -> None:
    app = app_with({"default_limits": ["1/minute"]}, DEFAULT="", DEFAULTS_COST=None)
    assert answers(app, "/free") == [200, 429]
    app = app_with({"default_limits": ["", None, "1/minute"]})
    assert answers(app, "/free") == [200, 429]
    app = app_with({"default_limits": []}, DEFAULT="1/minute")
    assert answers(app, "/free") == [200, 429]


def test_storage_options_of_setting_and_argument() -> None:
    read = Reader({"RATELIMIT_STORAGE_OPTIONS": {"a": 1}})
    assert read.options({"a": 2, "b": 3}, "RATELIMIT_STORAGE_OPTIONS") == {"a": 1, "b": 3}


# -------------------------------------------------------------------------------- names of headers


class Foreign(enum.Enum):
    """As another package has it."""

    RESET = 1
    REMAINING = 2
    LIMIT = 3
    RETRY_AFTER = 4


@pytest.mark.parametrize(
    "spelling",
    [
        HeaderNames.LIMIT,
        "X-RateLimit-Limit",
        "x-ratelimit-limit",
        "LIMIT",
        "limit",
        "HEADER_LIMIT",
        "RATELIMIT_HEADER_LIMIT",
        Foreign.LIMIT,
    ],
)
def test_header_name_mapping_has_many_spellings(spelling: Any) -> None:
    app = app_with({"header_name_mapping": {spelling: "X-Max"}, "headers_enabled": True})
    assert app.test_client().get("/").headers["X-Max"] == "1"
    assert header_of(spelling) is HeaderNames.LIMIT


def test_the_argument_wins_over_the_setting_of_a_header() -> None:
    arguments = {"header_name_mapping": {"limit": "X-A", "reset": ""}, "headers_enabled": True}
    headers = (
        app_with(arguments, HEADER_LIMIT="X-B", HEADER_RESET="X-C").test_client().get("/").headers
    )
    assert "X-A" in headers
    assert "X-C" in headers
    assert "X-B" not in headers


@pytest.mark.parametrize(
    "wrong", [{"X-Other": "X"}, {7: "X"}, {"limit": 7}, {"limit": "a b"}, "limit"]
)
def test_other_mappings_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="header"):
        app_with({"header_name_mapping": wrong})


# ------------------------------------------------------------------------------------ unknown names


def test_unknown_settings(caplog: pytest.LogCaptureFixture) -> None:
    app_with(STORAGE_URL="memory://", DEFUALT="1/minute", SHOP_PLAN="gold")
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("RATELIMIT_STORAGE_URL: it is RATELIMIT_STORAGE_URI now" in text for text in logged)
    assert any("did you mean RATELIMIT_DEFAULT?" in text for text in logged)
    assert any(text.endswith("there is no setting RATELIMIT_SHOP_PLAN") for text in logged)


@pytest.mark.parametrize("allowed", [True, "true", "RATELIMIT_SHOP_", ["RATELIMIT_SHOP_"]])
def test_names_of_the_application_can_be_allowed(
    allowed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app_with({"strict": True}, SHOP_PLAN="gold", ALLOW_UNKNOWN=allowed)
    assert not caplog.records
    with pytest.raises(ConfigurationError, match="no setting RATELIMIT_OTHER"):
        app_with({"strict": True}, OTHER="gold", ALLOW_UNKNOWN=["RATELIMIT_SHOP_"])


# ------------------------------------------------------------------------------------ key functions


def test_an_unbound_proxy_is_a_key_function_however_it_is_given() -> None:
    for arguments in ((proxy(),), (None, proxy()), ()):
        app = Flask("shop")
        app.config["WHO"] = lambda: "me"
        limiter = Limiter(
            *arguments, **({} if arguments else {"key_func": proxy()}), storage_uri="memory://"
        )
        limiter.init_app(app)
        app.add_url_rule("/", "index", limiter.limit("1 per minute")(lambda: "hello"))
        assert answers(app) == [200, 429]
    app = Flask("shop")
    app.config.update(
        RATELIMIT_KEY_FUNC=proxy(), WHO=lambda: "me", RATELIMIT_STORAGE_URI="memory://"
    )
    limiter = Limiter(app=app)
    app.add_url_rule("/", "index", limiter.limit("1 per minute", key_func=proxy())(lambda: "hello"))
    assert answers(app) == [200, 429]


def test_key_func_true_is_for_limits_with_their_own() -> None:
    app = Flask("shop")
    app.testing = True
    limiter = Limiter(key_func=True, app=app, storage_uri="memory://")
    app.add_url_rule(
        "/", "index", limiter.limit("1/minute", key_func=lambda: "me")(lambda: "hello")
    )
    app.add_url_rule("/none", "none", limiter.limit("1/minute")(lambda: "hello"))
    assert answers(app) == [200, 429]
    with pytest.raises(ConfigurationError, match="must have its own key_func"):
        app.test_client().get("/none")


def test_auto_check_is_reported_as_removed() -> None:
    with pytest.raises(TypeError, match="auto_check: it was removed in Flask-Limiter 4"):
        Limiter(get_remote_address, auto_check=False)
    with pytest.raises(TypeError, match=r"no argument colour$"):
        Limiter(get_remote_address, colour="red")


def test_settings_are_those_of_flask_limiter() -> None:
    from flask_limiter.constants import ConfigVars as Theirs

    theirs = {name: value for name, value in vars(Theirs).items() if name.isupper()}
    assert len(theirs) == 30
    for name, value in theirs.items():
        assert getattr(ConfigVars, name) == value


def test_a_setting_enables_against_the_argument(clock: Any) -> None:
    app = Flask("enabled")
    app.config["RATELIMIT_ENABLED"] = True
    app.add_url_rule("/", "hello", hello)
    Limiter(
        get_remote_address,
        app=app,
        enabled=False,
        default_limits=["1/hour"],
        storage_uri="memory://",
    )
    assert [app.test_client().get("/").status_code for _ in range(2)] == [200, 429]


def test_arguments_win_over_settings(app: Flask, make: Any, get: Any) -> None:
    app.config.update(
        RATELIMIT_DEFAULT="9 per hour",
        RATELIMIT_APPLICATION="9 per hour",
        RATELIMIT_KEY_PREFIX="config",
        RATELIMIT_HEADERS_ENABLED=False,
        RATELIMIT_STRATEGY="moving-window",
        RATELIMIT_STORAGE_URI="nonsense://",
        RATELIMIT_HEADER_LIMIT="X-From-Config",
        RATELIMIT_HEADER_RESET="X-Reset-From-Config",
        RATELIMIT_REQUEST_IDENTIFIER=lambda: "config",
    )
    limiter = make(
        default_limits=["1 per hour"],
        key_prefix="argument",
        headers_enabled=True,
        strategy="sliding-window-counter",
        header_name_mapping={weir.flask.HeaderNames.LIMIT: "X-From-Argument"},
        request_identifier=lambda: "argument",
    )
    app.add_url_rule("/", "hello", lambda: limiter.current_limit.key)
    reply = get("/")
    assert reply.text == "LIMITER/argument/10.0.0.1/argument/1/1/hour"
    assert reply.headers["X-From-Argument"] == "1"
    assert "X-Reset-From-Config" in reply.headers
    assert type(limiter.limiter).__name__ == "SlidingWindowCounterRateLimiter"


def test_all_settings(app: Flask, get: Any) -> None:
    seen: list[str] = []
    app.config.update(
        RATELIMIT_KEY_FUNC=get_remote_address,
        RATELIMIT_DEFAULT="3 per hour; 5 per day",
        RATELIMIT_DEFAULTS_PER_METHOD=True,
        RATELIMIT_DEFAULTS_COST=lambda: 2,
        RATELIMIT_DEFAULTS_EXEMPT_WHEN=lambda: False,
        RATELIMIT_APPLICATION="100 per hour",
        RATELIMIT_APPLICATION_PER_METHOD=True,
        RATELIMIT_APPLICATION_COST=3,
        RATELIMIT_APPLICATION_EXEMPT_WHEN=lambda: False,
        RATELIMIT_STORAGE_URI="memory://",
        RATELIMIT_STORAGE_OPTIONS={"keys": 1024},
        RATELIMIT_STRATEGY="moving-window",
        RATELIMIT_HEADERS_ENABLED=True,
        RATELIMIT_HEADER_LIMIT="X-L",
        RATELIMIT_HEADER_REMAINING="X-R",
        RATELIMIT_HEADER_RESET="X-T",
        RATELIMIT_HEADER_RETRY_AFTER="X-A",
        RATELIMIT_HEADER_RETRY_AFTER_VALUE="http-date",
        RATELIMIT_KEY_PREFIX="p",
        RATELIMIT_FAIL_ON_FIRST_BREACH=False,
        RATELIMIT_SWALLOW_ERRORS=True,
        RATELIMIT_ON_BREACH_CALLBACK=lambda limit: seen.append(limit.key),
        RATELIMIT_META="50 per day",
        RATELIMIT_ON_META_BREACH_CALLBACK=lambda limit: seen.append(limit.key),
        RATELIMIT_IN_MEMORY_FALLBACK="1 per minute",
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
        RATELIMIT_REQUEST_IDENTIFIER=lambda: "everything",
    )
    limiter = Limiter(app=app)
    app.add_url_rule("/", "hello", hello)
    reply = get("/")
    assert (reply.headers["X-L"], reply.headers["X-R"]) == ("3", "1")
    assert reply.headers["X-T"] == "1700003601"
    assert reply.headers["X-A"] == "Tue, 14 Nov 2023 23:13:21 GMT"
    reply = get("/")
    assert reply.status_code == 429
    assert seen == ["LIMITER/p/10.0.0.1/everything:GET/3/1/hour"]
    assert limiter.storage.info()["keys_max"] == 1024


def test_default_limits_that_have_options_of_their_own(make: Any, app: Flask, get: Any) -> None:
    limiter = make(
        default_limits=[Limit("5 per hour", key_function=lambda: "all", cost=2), "9 per day"],
        default_limits_cost=3,
    )
    app.add_url_rule(
        "/", "hello", lambda: str([(item.key, item.remaining) for item in limiter.current_limits])
    )
    assert get("/").text == str(
        [("LIMITER/all/hello/5/1/hour", 3), ("LIMITER/10.0.0.1/hello/9/1/day", 6)]
    )


def test_settings_may_be_lists(app: Flask, make: Any, statuses: Any) -> None:
    app.config["RATELIMIT_DEFAULT"] = ["2 per minute", "3 per hour"]
    make()
    app.add_url_rule("/", "hello", hello)
    assert statuses(3) == [200, 200, 429]


def test_init_app_twice_reads_settings_again(app: Flask, get: Any) -> None:
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")
    app.config["RATELIMIT_DEFAULT"] = "1 per hour"
    limiter.init_app(app)
    app.add_url_rule("/", "hello", hello)
    assert [get("/").status_code for _ in range(2)] == [200, 429]


def test_an_unknown_setting_is_reported(app: Flask, make: Any, caplog: Any) -> None:
    app.config["RATELIMIT_DEFUALT"] = "1 per hour"
    make()
    assert "did you mean RATELIMIT_DEFAULT?" in caplog.text
    with pytest.raises(ConfigurationError, match="RATELIMIT_DEFUALT"):
        make(strict=True)
