"""The C extension: Python objects over libweir's structs, nothing else.

Times are seconds since the Unix epoch. Every decision calls ``time.time()`` through the ``time``
module, so freezegun, time-machine and hiro can change Weir's clock. This time is rounded to the
nearest microsecond. Returned times and durations are rounded up to the next microsecond.

Most types are declared in the stubs ``_core_*.pyi``, which have no modules at run time: import the
names from ``weir._core``.
"""

from typing import Final

from ._core_check import Evaluation as Evaluation
from ._core_check import FlaskHooks as FlaskHooks
from ._core_check import PlanBase as PlanBase
from ._core_check import PreparedCheck as PreparedCheck
from ._core_check import RemoteAddress as RemoteAddress
from ._core_check import RequestBase as RequestBase
from ._core_decision import Decision as Decision
from ._core_decision import Verdict as Verdict
from ._core_decision import WindowStats as WindowStats
from ._core_decision import deciding as deciding
from ._core_decision import later as later
from ._core_limit import Granularity as Granularity
from ._core_limit import Limit as Limit
from ._core_limit import ParseError as ParseError
from ._core_limit import Peek as Peek
from ._core_limit import StorageError as StorageError
from ._core_limit import TableError as TableError
from ._core_limit import WeirError as WeirError
from ._core_limit import _make_zone as _make_zone
from ._core_limit import _set_items as _set_items
from ._core_limit import client_form as client_form
from ._core_limit import identifier as identifier
from ._core_limit import join_key as join_key
from ._core_limit import parse as parse
from ._core_limit import parse_many as parse_many
from ._core_remote import MemcachedCheck as MemcachedCheck
from ._core_remote import RedisCodec as RedisCodec
from ._core_remote import RedisCommand as RedisCommand
from ._core_remote import StateRequest as StateRequest
from ._core_remote import memcached_checks as memcached_checks
from ._core_remote import memcached_read as memcached_read
from ._core_remote import state_request as state_request
from ._core_table import LimitCounts as LimitCounts
from ._core_table import RateLimiter as RateLimiter
from ._core_table import RegisteredLimit as RegisteredLimit
from ._core_table import Rule as Rule
from ._core_table import Table as Table
from ._core_table import TopClient as TopClient
from ._core_table import unlink as unlink

VERSION: Final[str]
CHECKS_MAX: Final[int]

#: Modes of :meth:`Table.decide`.
HIT: Final[int]
TEST: Final[int]
EACH: Final[int]
REFUND: Final[int]
ROLE_CHARGED: Final[int]
ROLE_PEEKED: Final[int]
ROLE_DEFERRED: Final[int]
ROLE_SHADOW: Final[int]

#: The seconds of each unit, by name, shortest unit first.
UNITS: Final[dict[str, int]]

#: By name: tag in the names of counters, shape, description, options, and how states are packed.
STRATEGIES: Final[dict[str, tuple[str, str, str, tuple[str, ...], str]]]

#: The script that decides on Redis.
REDIS_SCRIPT: Final[bytes]
