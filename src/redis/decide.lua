-- A whole decision of libweir on a Redis or Valkey server: several limits, all or nothing, one call.
--
--   KEYS     a name for each counter; those of moving windows come last
--   ARGV[1]  packed: mode (0 hit, 1 test, 2 each, 3 refund), number of checks, number of counters that are
--            no moving windows, whether the time is given, the clock; then for each check its strategy
--            (+ 16: wide), its place in KEYS and five numbers. The clock is the time itself if it is
--            given, else what to add to the server's
--   reply    the time, then for each check: allowed, remaining, reset_at, retry_after (-1: never), delay
--
-- Numbers. Lua has doubles: integers are exact below 2^53. Times are whole microseconds, the resolution
-- of TIME, and stay below that until the year 2255. Amounts and levels may need up to 126 bits: then the
-- caller marks the check as wide, and its counts are objects with operators, so that each strategy
-- stands here once. A wide number is sent as three limbs of 24 bits, answered as "x" and hex digits.
--
-- The strategies are those of src/strategy/, which explain themselves there. A level is counted in units
-- of gcd(amount, period) hits x µs, so that a million per day is not wide.
--
-- Every counter is read before the first one is written: what can fail has failed by then.

local call, pack, take, floor = redis.call, struct.pack, struct.unpack, math.floor
local SKEW = 100000             -- µs that calls may arrive out of order
local LATEST = 9007199254740991 -- later, and longer, is said as this
local NEVER = -1
local ENTRIES_MAX = 16777216    -- of one moving window

local args = ARGV[1]
local mode, checks, plain, given, now, place = take('<BBBBd', args)
if given == 0 then
    local time = call('TIME')
    now = now + time[1] * 1000000 + time[2]
    if now < 0 then now = 0 end
end

------------------------------------------------------------------------------------------- numbers

-- What is done with counts beside + - * < <= ==. Narrow ones are numbers, as times are.
local zero, most, bytes = 0, LATEST, 8
local function lift(time) return time end -- as a count
local function drop(count) return count end -- as a time, at most LATEST
local function answer(count) return count end
local function down(a, b) return floor(a / b) end -- exact: both are below 2^53
local function up(a, b)
    local q = floor(a / b)
    return q * b < a and q + 1 or q
end
local function write(time, a, b)
    if b then return pack('<ddd', time, a, b) end
    return pack('<dd', time, a)
end
local function read(s)
    local time, a, b = take(#s == 24 and '<ddd' or '<dd', s)
    return time, a, #s == 24 and b or nil
end
local function numbers(at) return take('<ddddd', args, at) end

-- Wide ones: six limbs of 24 bits, the least first; the last one carries the sign.
local function make_wide()
    local BASE = 16777216
    local LIMBS = '<I3I3I3I3I3I3'
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
        return new(x[1] + y[1], x[2] + y[2], x[3] + y[3], x[4] + y[4], x[5] + y[5], x[6] + y[6])
    end
    meta.__sub = function(x, y)
        return new(x[1] - y[1], x[2] - y[2], x[3] - y[3], x[4] - y[4], x[5] - y[5], x[6] - y[6])
    end
    meta.__mul = function(x, y) -- neither negative, the product below 2^143
        local limb = {0, 0, 0, 0, 0, 0}
        for i = 1, 6 do
            local xi = x[i]
            for j = 1, xi ~= 0 and 7 - i or 0 do
                limb[i + j - 1] = limb[i + j - 1] + xi * y[j]
            end
        end
        return new(limb[1], limb[2], limb[3], limb[4], limb[5], limb[6])
    end
    meta.__mod = function(x, y) -- y is 2^72
        return setmetatable({x[1], x[2], x[3], 0, 0, 0}, meta)
    end
    -- Quotient and rest, by estimates that are never too large: two or three of them.
    local function divide(x, y)
        local quotient = from(0)
        while y <= x do
            local part = floor(to(x) / to(y) * (1 - 2 ^ -48))
            part = from(part > 1 and part or 1)
            quotient, x = quotient + part, x - part * y
        end
        return quotient, x
    end
    local none, one = from(0), from(1)
    local function limbs(s, at, count)
        local a, b, c, d, e, f, after
        if count == 3 then
            a, b, c, after = take('<I3I3I3', s, at)
            return setmetatable({a, b, c, 0, 0, 0}, meta), after
        end
        a, b, c, d, e, f, after = take(LIMBS, s, at)
        return setmetatable({a, b, c, d, e, f}, meta), after
    end
    return {
        zero = none, most = from(2 ^ 63) - one, bytes = 18, lift = from,
        drop = function(x) return math.min(to(x), LATEST) end,
        answer = function(x) return string.format('x%06x%06x%06x', x[3], x[2], x[1]) end,
        down = function(x, y) return (divide(x, y)) end,
        up = function(x, y)
            local quotient, rest = divide(x, y)
            return rest == none and quotient or quotient + one
        end,
        write = function(time, a, b)
            local s = pack('<d', time) .. pack(LIMBS, a[1], a[2], a[3], a[4], a[5], a[6])
            return b and s .. pack(LIMBS, b[1], b[2], b[3], b[4], b[5], b[6]) or s
        end,
        read = function(s)
            local time = take('<d', s)
            return time, limbs(s, 9, 6), #s > 26 and limbs(s, 27, 6) or nil
        end,
        numbers = function(at)
            local a, b, c, d, e
            a, at = limbs(args, at, 3)
            b, at = limbs(args, at, 3)
            c, at = limbs(args, at, 3)
            d, at = limbs(args, at, 3)
            e, at = limbs(args, at, 3)
            return a, b, c, d, e, at
        end,
        -- Parts of a moving window's log: three limbs are enough.
        write_part = function(count) return pack('<I3I3I3', count[1], count[2], count[3]) end,
        read_part = function(s, at) return (limbs(s, at, 3)) end,
    }
end

-- Exchanges the operations for those of the other width.
local wide, other = false, nil
local function turn()
    wide, other = not wide, other or make_wide()
    zero, other.zero = other.zero, zero
    most, other.most = other.most, most
    bytes, other.bytes = other.bytes, bytes
    lift, other.lift = other.lift, lift
    drop, other.drop = other.drop, drop
    answer, other.answer = other.answer, answer
    down, other.down = other.down, down
    up, other.up = other.up, up
    write, other.write = other.write, write
    read, other.read = other.read, read
    numbers, other.numbers = other.numbers, numbers
end

local function min(a, b) return a < b and a or b end

------------------------------------------------------------------------------------------ counters

-- A counter: `at`, a time, and `a`, `b`, one or two counts, as its strategy keeps them between two calls.
-- `ends`: the moment from which on it says the same as nothing, 0: now. `was`: its bytes on the server.
local counters = {}
local pass = 0 -- over the checks; each begins with what is on the server

local function foreign(key)
    error('weir: ' .. key .. ' holds something that is not a counter', 0)
end

local function open_plain()
    local found
    if plain == 1 then
        found = {call('GET', KEYS[1])}
    elseif plain > 1 then
        found = call('MGET', unpack(KEYS, 1, plain))
    end
    for slot = 1, plain do
        -- MGET is silent about a key of another type, GET is not.
        counters[slot] = {was = found[slot] or plain > 1 and call('GET', KEYS[slot])}
    end
end

local function words(counter, slot, two)
    if counter.pass == pass then return end
    local was = counter.was
    if not was then
        counter.at, counter.a, counter.b = 0, zero, two and zero
    elseif #was == 8 + (two and 2 or 1) * bytes then
        counter.at, counter.a, counter.b = read(was)
    else
        foreign(KEYS[slot])
    end
    counter.pass, counter.wide = pass, wide
end

local function lifetime(ends)
    local ms = floor((ends - now + 999) / 1000)
    if given ~= 0 then ms = ms + 60000 end -- the server's clock goes on meanwhile
    return ms > 0 and ms or 1
end

local function keep(counter, slot)
    if counter.wide ~= wide then turn() end
    local was = counter.was
    if counter.ends == 0 then
        if was then call('DEL', KEYS[slot]) end
        return
    end
    local is = write(counter.at, counter.a, counter.b)
    if is ~= was then call('SET', KEYS[slot], is, 'PX', lifetime(counter.ends)) end
end

---------------------------------------------------------------------------------------- strategies

-- Each: (counter, slot, charge, cost, four numbers) -> allowed, remaining, reset_at, retry_after, delay.
-- charge: 1 charges what is allowed, 0 does not, -1 gives back.

local function fixed_window(c, slot, charge, cost, amount, period)
    period = drop(period)
    words(c, slot)
    local ends, used = c.at, c.a
    if ends <= now then
        ends, used = 0, zero
    elseif ends - now > period then
        ends = now + period
    end
    local allowed, retry = true, 0
    if charge < 0 then
        used = used - min(cost, used)
    elseif amount - used < cost then
        allowed = false
        retry = amount < cost and NEVER or ends - now
    elseif charge > 0 and zero < cost then
        if used == zero then ends = now + period end
        used = used + cost
    end
    if used == zero then ends = 0 end
    c.at, c.a, c.ends = ends, used, ends
    return allowed, amount - used, ends > 0 and ends or now, retry, 0
end

-- at: the window's index; a: its hits; b: those of the window before.
local function sliding_window(c, slot, charge, cost, amount, wide_period)
    words(c, slot, true)
    local period = drop(wide_period)
    local index, moment = floor(now / period), now
    local was, cur, prev = c.at, zero, zero
    if was == index + 1 and was * period - now <= SKEW then
        index, moment = was, was * period
    end
    if was == index then
        cur, prev = min(c.a, amount), min(c.b, amount)
    elseif was > index then
        cur = min(c.a + c.b, amount)
    elseif was == index - 1 then
        prev = min(c.a, amount)
    end
    local start = index * period
    local stop = start + period
    local used = cur
    if zero < prev then used = cur + up(prev * lift(stop - moment), wide_period) end

    local function lighter_at(hits, room, stops) -- when `hits` that slide out weigh `room`; nil: at the end
        if hits <= room then return 0 end
        local left = drop(down(room * wide_period, hits))
        return left > 0 and stops - left or nil
    end
    local function room_for(wanted)
        local room = amount - wanted
        local when = cur <= room and lighter_at(prev, room - cur, stop)
        if when then return when > moment and when or moment end
        when = lighter_at(cur, room, stop + period) or stop + period
        return when > stop and when or stop
    end

    local allowed, retry = true, 0
    if charge < 0 then
        local part = min(cost, cur)
        cur, prev = cur - part, prev - min(cost - part, prev)
        used = cur
        if zero < prev then used = cur + up(prev * lift(stop - moment), wide_period) end
    elseif zero < cost and amount - cost < used then
        allowed = false
        retry = amount < cost and NEVER or room_for(cost) - now
    elseif charge > 0 then
        cur, used = cur + cost, used + cost
    end
    local remaining = used < amount and amount - used or zero
    local any = zero < cur or zero < prev
    c.at, c.a, c.b, c.ends = index, cur, prev, any and stop + (zero < cur and period or 0) or 0
    return allowed, remaining, any and room_for(remaining + lift(1)) or now, retry, 0
end

-- The level of both buckets at `now`, at most `most`, and whether the counter said otherwise. at: the time
-- at which a was the level.
local function level_of(c, slot, rate, most)
    words(c, slot)
    local level, stale = c.a, most < c.a
    local some = zero < level
    if stale then level = most end
    if c.at <= now then
        local drained = rate * lift(now - c.at)
        level = drained < level and level - drained or zero
    elseif some then
        level = level + rate * lift(c.at - now)
    end
    if most < level then return most, true end
    return level, stale or some and level == zero
end

local function keep_level(c, level, rate, changed)
    local wait = zero < level and drop(up(level, rate)) or 0
    if changed then
        c.at, c.a = wait > 0 and now or 0, level
    end
    c.ends = wait > 0 and now + wait or 0
    return now + wait
end

-- per: units of a hit; rate: units drained in a µs.
local function token_bucket(c, slot, charge, cost, amount, tokens, rate, per)
    local size = tokens * per
    local level, changed = zero, false
    if zero < rate then
        level, changed = level_of(c, slot, rate, size + (amount - lift(1)) * per)
    else
        words(c, slot)
    end
    local allowed, retry = true, 0
    if charge < 0 then
        level, changed = level - min(cost * per, level), true
    elseif zero < cost then
        local after = level + cost * per
        if tokens < cost then
            allowed, retry = false, NEVER
        elseif size < after then
            allowed, retry = false, drop(up(after - size, rate))
        elseif charge > 0 then
            level, changed = after, true
        end
    end
    local remaining = level < size and tokens - up(level, per) or zero
    return allowed, remaining, keep_level(c, level, rate, changed), retry, 0
end

-- longest: the wait that is still admitted, in µs.
local function leaky_bucket(c, slot, charge, cost, amount, longest, rate, per)
    local limit = longest * rate
    local level, changed = zero, false
    if zero < rate then
        level, changed = level_of(c, slot, rate, limit + amount * per)
    else
        words(c, slot)
    end
    local allowed, retry, delay = true, 0, 0
    if charge < 0 then
        level, changed = level - min(cost * per, level), true
    elseif zero < cost then
        if amount < cost then
            allowed, retry = false, NEVER
        elseif limit < level then
            allowed, retry = false, drop(up(level - limit, rate))
        else
            delay = zero < level and drop(up(level, rate)) or 0
            if charge > 0 then level, changed = level + cost * per, true end
        end
    end
    local remaining = zero
    if zero < amount and level <= limit then
        remaining = min(down(limit - level, per), amount - lift(1)) + lift(1)
    end
    return allowed, remaining, keep_level(c, level, rate, changed), retry, delay
end

------------------------------------------------------------------------------------ moving windows

-- The log of a moving window: one string, a header and a ring of records.
--
--     oldest newest base last head closed room | record record record ...
--
-- An entry is a time and the number of hits up to and with it, counted from some beginning, modulo a power
-- of two; `base` is that number before the oldest entry. The newest entry is open: it stands in the header
-- alone (newest, last), so that hits of one moment merge. The `closed` ones before it are records, from
-- place `head` of a ring with `room` for so many: the lower bytes of the time and of the number, as many as
-- period and amount need. A hit writes one record and the header; what has expired is found by
-- bisection, and dropped by moving `head`. The ring grows by a quarter, and shrinks, by being rewritten.
local moving_window, keep_log

local function make_logs()
    local record, header, width, start, ages, numbers_of_hits

    local function layout(c)
        if wide then
            width, start, ages, numbers_of_hits = 16, 46, 2 ^ 56, lift(2 ^ 72)
        else
            record = '<I' .. c.time_bytes .. 'I' .. c.hit_bytes
            header = '<ddI' .. c.hit_bytes .. 'I' .. c.hit_bytes .. 'I4I4I4'
            width, start = c.time_bytes + c.hit_bytes, 28 + 2 * c.hit_bytes
            ages, numbers_of_hits = 2 ^ (8 * c.time_bytes), 2 ^ (8 * c.hit_bytes)
        end
    end

    local function write_record(time, last)
        if wide then return pack('<I7', time) .. other.write_part(last) end
        return pack(record, time % ages, last)
    end
    local function read_record(s)
        if wide then return take('<I7', s), other.read_part(s, 8) end
        return take(record, s)
    end
    local function write_header(c)
        if wide then
            return pack('<dd', c.oldest, c.newest) .. other.write_part(c.base) ..
                other.write_part(c.last) .. pack('<I4I4I4', c.head, c.closed, c.room)
        end
        return pack(header, c.oldest, c.newest, c.base, c.last, c.head, c.closed, c.room)
    end
    local function read_header(c, s)
        if wide then
            c.oldest, c.newest = take('<dd', s)
            c.base, c.last = other.read_part(s, 17), other.read_part(s, 26)
            c.head, c.closed, c.room = take('<I4I4I4', s, 35)
        else
            c.oldest, c.newest, c.base, c.last, c.head, c.closed, c.room = take(header, s)
        end
    end

    local function open(c, slot)
        layout(c)
        if c.pass == pass then return end
        if c.was == nil then c.was = call('GETRANGE', KEYS[slot], 0, start - 1) end
        if c.was == '' then
            c.oldest, c.newest, c.base, c.last, c.head, c.closed, c.room = 0, 0, zero, zero, 0, 0, 0
        elseif #c.was == start then
            read_header(c, c.was)
        else
            foreign(KEYS[slot])
        end
        c.total = (c.last - c.base) % numbers_of_hits
        c.pass, c.wide, c.key, c.fresh, c.changed = pass, wide, KEYS[slot], nil, false
    end

    -- Time and number of entry i; 0 is the oldest, `closed` the open one.
    local function entry(c, i)
        if i == c.closed then return c.newest, c.last end
        if c.fresh and i == c.closed - 1 then return c.fresh_time, c.fresh_last end
        local from = start + (c.head + i) % c.room * width
        local s = call('GETRANGE', c.key, from, from + width - 1)
        if #s ~= width then foreign(c.key) end
        local time, last = read_record(s)
        return c.newest - (c.newest - time) % ages, last
    end

    -- The first entry, from `low` on, of which `is` holds, as it does of all behind it and of the open one.
    local function first(c, low, is)
        local high, probe, step = c.closed, low, 1
        while probe < high do
            if is(entry(c, probe)) then
                high = probe
            else
                low, probe, step = probe + 1, probe + step, step * 2
            end
        end
        while low < high do
            local middle = floor((low + high) / 2)
            if is(entry(c, middle)) then high = middle else low = middle + 1 end
        end
        return low
    end

    local function forget(c)
        c.base, c.last, c.total, c.head, c.closed, c.changed = zero, zero, zero, 0, 0, true
    end

    local function expire(c, upto)
        if c.newest <= upto then return forget(c) end
        if upto < c.oldest then return end
        local i = first(c, 1, function(time) return upto < time end)
        local _, base = entry(c, i - 1)
        c.oldest, c.base = entry(c, i), base
        c.head, c.closed = (c.head + i) % c.room, c.closed - i
        c.total, c.changed = (c.last - base) % numbers_of_hits, true
    end

    -- Brings the log to now. Returns the moment that counts: now, or a little later.
    local function settle(c)
        if c.total == zero then return now end
        local moment = now
        if now + SKEW < c.newest then
            c.closed = first(c, 0, function(time) return now < time end)
            c.newest, c.changed = now, true
            if c.closed == 0 then c.oldest = now end
        elseif now < c.newest then
            moment = c.newest
        end
        expire(c, moment - c.period)
        return moment
    end

    local function add(c, moment, cost)
        if c.total == zero then
            c.oldest, c.newest = moment, moment
        elseif c.newest < moment then
            if c.closed == ENTRIES_MAX then
                error('weir: ' .. c.key .. ' has too many hits for a moving window', 0)
            end
            c.fresh, c.fresh_time, c.fresh_last = true, c.newest, c.last
            c.closed, c.newest = c.closed + 1, moment
        end
        c.last, c.total = (c.last + cost) % numbers_of_hits, c.total + cost
        c.changed = true
    end

    local function take_back(c, hits)
        if c.total <= hits then return forget(c) end
        local left = c.total - hits
        local i = first(c, 0, function(_, last) return left <= (last - c.base) % numbers_of_hits end)
        c.newest, c.closed = entry(c, i), i
        c.last, c.total, c.changed = (c.base + left) % numbers_of_hits, left, true
    end

    local function step(c, slot, charge, cost, amount, period, time_bytes, hit_bytes)
        c.amount, c.period = drop(amount), drop(period)
        c.time_bytes, c.hit_bytes = drop(time_bytes), drop(hit_bytes)
        open(c, slot)
        local moment = settle(c)
        local allowed, retry = true, 0
        if charge < 0 then
            if zero < cost then take_back(c, cost) end
        elseif amount < cost then
            allowed, retry = false, NEVER
        elseif amount - cost < c.total and zero < cost then
            local leave = c.total - (amount - cost)
            local i = first(c, 0, function(_, last)
                return leave <= (last - c.base) % numbers_of_hits
            end)
            allowed, retry = false, entry(c, i) + c.period - now
        elseif charge > 0 and zero < cost then
            add(c, moment, cost)
        end
        -- What has expired is dropped by a step that may charge, as in src/strategy/moving_window.c.
        c.changed = c.changed and charge ~= 0
        local any = zero < c.total
        return allowed, c.total < amount and amount - c.total or zero,
            any and c.oldest + c.period or now, retry, 0
    end

    local function rewrite(c)
        local stored = c.closed - (c.fresh and 1 or 0)
        local from, whole = start + c.head * width, c.room - c.head
        local body = ''
        if stored > 0 then
            body = call('GETRANGE', c.key, from, from + math.min(stored, whole) * width - 1)
        end
        if stored > whole then
            body = body .. call('GETRANGE', c.key, start, start + (stored - whole) * width - 1)
        end
        if c.fresh then body = body .. write_record(c.fresh_time, c.fresh_last) end
        local more = math.max(4, floor(c.closed / 4))
        c.head, c.room = 0, c.closed == 0 and 0 or math.min(c.closed + more, c.amount)
        return write_header(c) .. body .. string.rep('\0', c.room * width - #body)
    end

    local function keep(c, slot)
        if c.wide ~= wide then turn() end
        if not c.changed then return end
        layout(c)
        if c.total == zero then
            if c.was ~= '' then call('DEL', c.key) end
            return
        end
        local ms = lifetime(c.newest + c.period)
        if c.room == 0 or c.room < c.closed or 4 * c.closed + 16 < c.room then
            call('SET', c.key, rewrite(c), 'PX', ms)
            return
        end
        if c.fresh then
            local at = start + (c.head + c.closed - 1) % c.room * width
            call('SETRANGE', c.key, at, write_record(c.fresh_time, c.fresh_last))
        end
        call('SETRANGE', c.key, 0, write_header(c))
        call('PEXPIRE', c.key, ms)
    end
    return step, keep
end

---------------------------------------------------------------------------------------------- main

-- By the numbers that enum weir_strategy gives them.
local strategies = {[0] = fixed_window, nil, sliding_window, token_bucket, leaky_bucket}
local reply = {now}

local function decide(charge)
    local denied, at = false, place
    pass = pass + 1
    for i = 1, checks do
        local kind, slot, cost, a, b, c, d
        kind, slot, at = take('<BB', args, at)
        if (kind >= 16) ~= wide then turn() end
        cost, a, b, c, d, at = numbers(at)
        local counter, strategy = counters[slot], strategies[kind % 16]
        -- Nothing is charged: the second check of a counter asks for what the first would have taken, too.
        if mode == 1 and counter.asked then cost = min(cost + counter.asked, most) end
        local allowed, remaining, reset, retry, delay = strategy(counter, slot, charge, cost, a, b, c, d)
        if mode == 1 and allowed then counter.asked = cost end
        local to = 5 * i - 3
        if pass == 1 then
            denied = denied or not allowed
            reply[to], reply[to + 3], reply[to + 4] = allowed and 1 or 0, min(retry, LATEST), delay
        end
        reply[to + 1], reply[to + 2] = answer(remaining), min(reset, LATEST)
    end
    return denied
end

open_plain()
if plain < #KEYS then
    moving_window, keep_log = make_logs()
    strategies[1] = moving_window
    for slot = plain + 1, #KEYS do counters[slot] = {} end
end
-- A denial takes back what the others were charged: their verdicts then describe uncharged counters.
local charges = {[0] = 1, 0, 1, -1}
if decide(charges[mode]) and mode == 0 and checks > 1 then decide(0) end
if mode ~= 1 then
    for slot = 1, plain do keep(counters[slot], slot) end
    for slot = plain + 1, #KEYS do keep_log(counters[slot], slot) end
end
return reply
