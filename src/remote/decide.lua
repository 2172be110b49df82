-- A whole decision of libweir on a Redis or Valkey server: several limits, all or nothing, in one call.
--
--   KEYS     a name for each counter; those of logs come last
--   ARGV[1]  packed: mode (0 hit, 1 test, 2 each, 3 refund), number of checks, number of counters that are
--            not logs, whether the time is given, the clock; then for each check its strategy
--            (+ 16: wide; + 32: peek), its index in KEYS and five numbers, the first of which is the cost. The
--            clock is the time itself if it is given, else an offset that is added to the server's time
--   reply    packed: the time; for each check: allowed, retry_after (-1: never), delay; for each check:
--            remaining, reset_at
--
-- Arguments of another form are refused before anything is written: unknown modes and strategies, indices
-- beyond KEYS, negative numbers and NaN, too few bytes or too many.
--
-- Numbers. Lua has doubles: integers are exact below 2^53. Times are whole microseconds, the resolution
-- of TIME, and are below that until the year 2255. Amounts and levels may need up to 126 bits: the caller
-- then marks the check as wide, and its counts are objects with operators, so the same code serves
-- both. (a - a % b) / b is the quotient rounded down, for both kinds.
--
-- src/strategy/ describes the strategies; embed.py inserts their scripts into the loop. Each script evaluates one
-- check. It reads now, amount, x, y, z (see weir_<symbol>_numbers(); for narrow numbers, period is x), cost, charge
-- (1: charge the cost if allowed; 0: do not charge; -1: give back), value (the counter's bytes, or false), wide, big,
-- and zero and one in the type of its numbers. It sets allowed, retry (NEVER, or µs from now), delay, remaining and
-- resets. If it charges, it also sets next_value[slot] (the new bytes; false: none), expires[slot] (the time at which
-- they expire) and renew[slot] (whether that time has changed).
--
-- A level is counted in units of gcd(amount, period) hits x µs, so that a million per day is not wide.
--
-- Every counter is read before the first one is written, so an error leaves all counters unchanged.
--
-- Redis runs the whole text at each call, and creating a function costs as much as reading a key. So the
-- common strategies are inline in one loop, and rarely used objects are created on demand, by functions
-- that capture nothing.

------------------------------------------------------------------------------------- wide numbers

-- Six limbs of 24 bits, the lowest first; the last one has the sign. If one operand is wide, the other
-- may be a plain number, but not in comparisons.
local function make_big(pack, take, malformed)
    local BASE, floor = 16777216, math.floor
    local meta = {}
    local function new(a, b, c, d, e, f) -- of limbs that may be out of range
        local carry = floor(a / BASE)
        a, b = a - carry * BASE, b + carry
        carry = floor(b / BASE)
        b, c = b - carry * BASE, c + carry
        carry = floor(c / BASE)
        c, d = c - carry * BASE, d + carry
        carry = floor(d / BASE)
        d, e = d - carry * BASE, e + carry
        carry = floor(e / BASE)
        return setmetatable({a, b, c, d, e - carry * BASE, f + carry}, meta)
    end
    local function from(x)
        if type(x) == 'table' then return x end
        local limb = {}
        for i = 1, 6 do
            limb[i] = x % BASE
            x = (x - limb[i]) / BASE
        end
        return setmetatable(limb, meta)
    end
    local function to(x) -- rounded when above 2^53
        return ((((x[6] * BASE + x[5]) * BASE + x[4]) * BASE + x[3]) * BASE + x[2]) * BASE + x[1]
    end
    local function compare(x, y)
        for i = 6, 1, -1 do
            if x[i] ~= y[i] then return x[i] - y[i] end
        end
        return 0
    end
    meta.__lt = function(x, y) return compare(x, y) < 0 end
    meta.__le = function(x, y) return compare(x, y) <= 0 end
    meta.__eq = function(x, y) return compare(x, y) == 0 end
    meta.__add = function(x, y)
        x, y = from(x), from(y)
        return new(x[1] + y[1], x[2] + y[2], x[3] + y[3], x[4] + y[4], x[5] + y[5], x[6] + y[6])
    end
    meta.__sub = function(x, y)
        x, y = from(x), from(y)
        return new(x[1] - y[1], x[2] - y[2], x[3] - y[3], x[4] - y[4], x[5] - y[5], x[6] - y[6])
    end
    meta.__mul = function(x, y) -- neither negative, the product below 2^143
        x, y = from(x), from(y)
        local limb = {0, 0, 0, 0, 0, 0}
        for i = 1, 6 do
            local xi = x[i]
            for j = 1, xi ~= 0 and 7 - i or 0 do
                limb[i + j - 1] = limb[i + j - 1] + xi * y[j]
            end
        end
        return new(limb[1], limb[2], limb[3], limb[4], limb[5], limb[6])
    end
    -- Quotient and remainder, by two or three estimates that are never too large.
    local function divide(x, y)
        local quotient = from(0)
        x, y = from(x), from(y)
        while y <= x do
            local part = floor(to(x) / to(y) * (1 - 2 ^ -48))
            part = from(part > 1 and part or 1)
            quotient, x = quotient + part, x - part * y
        end
        return quotient, x
    end
    meta.__div = function(x, y) return (divide(x, y)) end
    meta.__mod = function(x, y)
        local _, rest = divide(x, y)
        return rest
    end
    local function read(s, at)
        local a, b, c, d, e, f = take('<I3I3I3I3I3I3', s, at)
        return setmetatable({a, b, c, d, e, f}, meta)
    end
    local function read_short(s, at) -- one below 2^72
        local a, b, c = take('<I3I3I3', s, at)
        return setmetatable({a, b, c, 0, 0, 0}, meta)
    end
    local function write(x)
        return pack('<I3I3I3I3I3I3', x[1], x[2], x[3], x[4], x[5], x[6])
    end
    return {
        zero = from(0), one = from(1), max = from(2 ^ 63) - 1, read_short = read_short,
        time = function(x) return math.min(to(x), 9007199254740991) end,
        wrap = function(x) return setmetatable({x[1], x[2], x[3], 0, 0, 0}, meta) end, -- modulo 2^72
        write_short = function(x) return pack('<I3I3I3', x[1], x[2], x[3]) end,
        write_word = function(x) return pack('<I3I3I2', x[1], x[2], x[3]) end,
        -- A counter: a time, another time if it has one, a count, another count if it has one.
        read = function(value, times, counts)
            local time, other = take(times == 2 and '<dd' or '<d', value)
            local at = 1 + 8 * times
            if times == 2 then return time, other, read(value, at) end
            return time, read(value, at), counts == 2 and read(value, at + 18) or nil
        end,
        write = function(time, a, b)
            return pack('<d', time) .. (type(a) == 'number' and pack('<d', a) or write(a)) ..
                (b and write(b) or '')
        end,
        arguments = function(s, at)
            for last = at + 8, at + 44, 9 do -- none above 2^63
                if take('B', s, last) ~= 0 or take('B', s, last - 1) > 127 then malformed('numbers') end
            end
            return read_short(s, at), read_short(s, at + 9), read_short(s, at + 18),
                read_short(s, at + 27), read_short(s, at + 36)
        end,
    }
end

-- a * b / c, rounded down, and the remainder, both exact. Arguments: wide numbers; narrow numbers whose product
-- is exact in a double; or a below 2^40, b and c below 2^42, in four steps of ten bits.
local function make_scale()
    local floor = math.floor
    return function(a, b, c)
        local product = a * b
        if type(product) == 'table' or product < 9007199254740992 then
            local rest = product % c
            return (product - rest) / c, rest
        end
        local quotient, rest = 0, 0
        for shift = 30, 0, -10 do
            product = rest * 1024 + floor(a / 2 ^ shift) % 1024 * b
            rest = product % c
            quotient = quotient * 1024 + (product - rest) / c
        end
        return quotient, rest
    end
end

--@logs

---------------------------------------------------------------------------------------------- main

local call, pack, take = redis.call, struct.pack, struct.unpack
local SKEW = 100000             -- µs that calls may arrive out of order
local LATEST = 9007199254740991 -- the largest time and duration that is returned
local NEVER = -1

local function malformed(what)
    error('weir: malformed arguments: ' .. what, 0)
end

local args = ARGV[1]
if not args or #args < 12 then malformed('too short') end
local mode, checks, plain, given, now, first_check = take('<BBBBd', args)
if mode > 3 then malformed('unknown mode ' .. mode) end
if checks < 1 or checks > 32 or plain > #KEYS or given > 1 or now ~= now then malformed('head') end
if given == 0 then
    local time = call('TIME')
    now = now + time[1] * 1000000 + time[2]
    if now < 0 then now = 0 end
end

-- For each counter: its bytes on the server (false: none), its new bytes, the time at which its key expires, and
-- whether that time changes.
local old_value, next_value = {false, false, false, false}, {false, false, false, false}
local expires, renew = {0, 0, 0, 0}, {false, false, false, false}
if plain == 1 then
    old_value[1] = call('GET', KEYS[1])
elseif plain > 1 then
    old_value = call('MGET', unpack(KEYS, 1, plain))
    for slot = 1, plain do
        -- MGET returns nil for a key of another type; GET raises an error.
        if not old_value[slot] then call('GET', KEYS[slot]) end
    end
end

local big, scale, open_log, moving_window, keep_log -- created on demand
local summed = mode == 1 and {} -- for each counter, the summed cost of the earlier checks, since a test charges nothing
local whole = mode == 3 and -1 or mode == 1 and 0 or 1 -- 1: charge if allowed; 0: do not charge; -1: give back
local denied, first, second = false, '', ''

for round = 1, 2 do
    local at = first_check
    for slot = 1, plain do next_value[slot], renew[slot] = old_value[slot], false end
    for slot = plain + 1, #KEYS do next_value[slot] = false end
    for _ = 1, checks do
        if #args < at + 41 then malformed('too short') end
        local kind, slot, cost, amount, x, y, z, after = take('<BBddddd', args, at)
        local wide, zero, one, period, charge = false, 0, 1, x, whole
        at = after
        local peek = kind > 31
        if peek then kind, charge = kind - 32, 0 end
        if kind > 15 then
            if #args < after + 44 then malformed('too short') end
            big = big or make_big(pack, take, malformed)
            cost, amount, x, y, z = big.arguments(args, after)
            wide, zero, one, kind, at = true, big.zero, big.one, kind - 16, after + 45
        end
        if slot < 1 or slot > #KEYS then malformed('place ' .. slot) end
        -- "not", since NaN is neither below nor above anything. Wide numbers are never negative.
        if not (wide or 0 <= cost and cost <= LATEST and 0 <= amount and amount <= LATEST and 0 <= x and
            x <= LATEST and 0 <= y and y <= LATEST and 0 <= z and z <= LATEST) then
            malformed('numbers')
        end
        if summed and summed[slot] then
            cost = cost + summed[slot]
            local max = wide and big.max or LATEST
            if max < cost then cost = max end
        end
        if round == 2 then cost = zero end
        local value = next_value[slot]
        local allowed, retry, delay, remaining, resets = true, 0, 0, zero, now

        --@strategies

        -- The bytes had the length of a counter but are not one.
        if not (0 <= resets and NEVER <= retry and 0 <= delay and (wide or 0 <= remaining and remaining <= LATEST)) then
            error('weir: ' .. KEYS[slot] .. ' holds something that is not a counter', 0)
        end
        if summed and allowed and not peek then summed[slot] = cost end
        if round == 1 then
            denied = denied or not allowed
            if LATEST < retry then retry = LATEST end
            first = first .. pack('<Bdd', allowed and 1 or 0, retry, delay)
        end
        if LATEST < resets then resets = LATEST end
        second = second .. (wide and big.write_word(remaining) or pack('<I8', remaining)) .. pack('<d', resets)
    end
    if at ~= #args + 1 then malformed('too long') end
    for slot = plain + 1, #KEYS do
        if not next_value[slot] then malformed('a name that no check uses') end
    end
    -- After a denial, the charges of the other checks are discarded, and their verdicts describe uncharged
    -- counters. A hit of cost 0 charges nothing, but updates a counter to now.
    if round == 2 or not denied or mode ~= 0 or checks == 1 then break end
    second = ''
end

if mode ~= 1 then
    for slot = 1, plain do
        local key, value = KEYS[slot], next_value[slot]
        if value == old_value[slot] then -- unchanged
        elseif not value then
            call('DEL', key)
        elseif old_value[slot] and not renew[slot] then
            call('SETRANGE', key, '0', value)
        else
            local ms = (expires[slot] - now + 999) / 1000
            if ms < 1 then ms = 1 end
            if given ~= 0 then ms = ms + 60000 end -- the server's clock continues
            call('SET', key, value, 'PX', ms - ms % 1)
        end
    end
    for slot = plain + 1, #KEYS do keep_log(next_value[slot]) end
end
return pack('<d', now) .. first .. second
