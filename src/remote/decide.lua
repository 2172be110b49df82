-- A whole decision of libweir on a Redis or Valkey server: several limits, all or nothing, in one call.
--
--   KEYS     a name for each counter; those of moving windows come last
--   ARGV[1]  packed: mode (0 hit, 1 test, 2 each, 3 refund), number of checks, number of counters that are
--            no moving windows, whether the time is given, the clock; then for each check its strategy
--            (+ 16: wide; + 32: only looked at), its place in KEYS and five numbers, the first of which is the cost. The clock
--            is the time itself if it is given, else what to add to the server's
--   reply    packed: the time; for each check: allowed, retry_after (-1: never), delay; for each check:
--            remaining, reset_at
--
-- What is not packed like that is refused before anything is written: unknown modes and strategies, places
-- beyond KEYS, numbers that are negative or none, too few bytes or too many.
--
-- Numbers. Lua has doubles: integers are exact below 2^53. Times are whole microseconds, the resolution
-- of TIME, and stay below that until the year 2255. Amounts and levels may need up to 126 bits: then the
-- caller marks the check as wide, and its counts are objects with operators, so that each strategy
-- stands here once. (a - a % b) / b is the quotient rounded down, of either.
--
-- The strategies are those of src/strategy/, which explain themselves there. A level is counted in units
-- of gcd(amount, period) hits x µs, so that a million per day is not wide.
--
-- Every counter is read before the first one is written: what can fail has failed by then.
--
-- Redis runs the whole text at each call, and making a function costs as much as asking for a key. So
-- the common strategies stand in one loop, and what few calls need is made by them, out of functions that
-- capture nothing.

------------------------------------------------------------------------------------- wide numbers

-- Six limbs of 24 bits, the least first; the last one carries the sign. Where one operand is wide the other
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
    -- Quotient and rest, by estimates that are never too large: two or three of them.
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

-- a * b / c, rounded down, and the rest, both exact: of wide numbers, of narrow ones whose product a double
-- can hold, and of others with a below 2^40, b and c below 2^42 in four steps of ten bits.
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

------------------------------------------------------------------------------------ moving windows

-- The log of a moving window: one string, a header and a ring of records.
--
--     dies oldest newest base last head closed room | record record record ...
--
-- An entry is a time and the number of hits up to and with it, counted from some beginning, modulo a power
-- of two; `base` is that number before the oldest entry. The newest entry is open: it stands in the header
-- alone (newest, last), so that hits of one moment merge. The `closed` ones before it are records, from
-- place `head` of a ring with `room` for so many: the lower bytes of the time and of the number, as many as
-- period and amount need. A hit writes one record and the header; what has expired is found by
-- bisection, and dropped by moving `head`. The ring grows by a quarter, and shrinks, by being rewritten.
local function make_logs(call, pack, take, now, given)
    local ENTRIES_MAX, LOOK, SKEW, NEVER = 16777216, 8, 100000, -1
    local floor, least, char = math.floor, math.min, string.char
    local key, big, zero, record, header, width, start, ages, hits -- of the log at hand

    -- Made once for each log: to write a number as text costs as much as half a command.
    local function lay_out(log, time_bytes, hit_bytes)
        if log.big then
            log.width, log.start, log.ages = 16, 54, 2 ^ 56
        elseif not (time_bytes >= 1 and time_bytes <= 8 and hit_bytes >= 1 and hit_bytes <= 8) then
            error('weir: malformed arguments: bytes of a record', 0)
        else
            local of_time, of_hits = 'I' .. char(48 + time_bytes), 'I' .. char(48 + hit_bytes)
            log.record, log.header = '<' .. of_time .. of_hits, '<ddd' .. of_hits .. of_hits .. 'I4I4I4'
            log.width, log.start = time_bytes + hit_bytes, 36 + 2 * hit_bytes
            log.ages, log.hits = 2 ^ (8 * time_bytes), 2 ^ (8 * hit_bytes)
        end
    end
    local function take_up(log)
        if key == log.key then return end
        key, big, zero, record, header = log.key, log.big, log.big and log.big.zero or 0, log.record, log.header
        width, start, ages, hits = log.width, log.start, log.ages, log.hits
    end
    local function wrap(count)
        if big then return big.wrap(count) end
        return count % hits
    end

    local function write_record(time, last)
        if big then return pack('<I7', time) .. big.write_short(last) end
        return pack(record, time % ages, last)
    end
    local function read_record(bytes, at)
        if big then return (take('<I7', bytes, at)), big.read_short(bytes, at + 7) end
        return take(record, bytes, at)
    end
    local function write_header(log)
        if big then
            return pack('<ddd', log.dies, log.oldest, log.newest) .. big.write_short(log.base) ..
                big.write_short(log.last) .. pack('<I4I4I4', log.head, log.closed, log.room)
        end
        return pack(header, log.dies, log.oldest, log.newest, log.base, log.last, log.head, log.closed,
            log.room)
    end

    local function foreign()
        error('weir: ' .. key .. ' holds something that is not a counter', 0)
    end

    local function open(slot, amount, period, time_bytes, hit_bytes, wide)
        local log = {
            key = KEYS[slot], big = wide, amount = amount, period = period, was = '', changed = false,
            fresh = false, total = 0, dies = 0, oldest = 0, newest = 0, base = 0, last = 0, head = 0,
            closed = 0, room = 0,
        }
        lay_out(log, time_bytes, hit_bytes)
        take_up(log)
        local was = call('GETRANGE', key, '0', '53') -- the longest header, maybe more than that
        log.was = was
        if was == '' then
            log.base, log.last = zero, zero
        elseif #was < start then
            foreign()
        elseif big then
            log.dies, log.oldest, log.newest = take('<ddd', was)
            log.base, log.last = big.read_short(was, 25), big.read_short(was, 34)
            log.head, log.closed, log.room = take('<I4I4I4', was, 43)
        else
            log.dies, log.oldest, log.newest, log.base, log.last, log.head, log.closed, log.room =
                take(header, was)
        end
        if log.room < log.closed or ENTRIES_MAX * 2 < log.room then foreign() end
        log.total = wrap(log.last - log.base)
        return log
    end

    -- `count` records from entry i on, or fewer, up to the ring's end.
    local function records(log, i, count)
        local at = (log.head + i) % log.room
        local from = start + at * width
        local bytes = call('GETRANGE', key, from, from + least(count, log.room - at) * width - 1)
        if #bytes < width then foreign() end
        return bytes
    end
    -- Time and number of entry i; 0 is the oldest, `closed` the open one.
    local function entry(log, i)
        if i == log.closed then return log.newest, log.last end
        if log.fresh and i == log.closed - 1 then return log.fresh_time, log.fresh_last end
        local time, last = read_record(records(log, i, 1), 1)
        return log.newest - (log.newest - time) % ages, last
    end
    -- The first entry, from `low` on, of which `is` holds, as it does of all behind it and of the open one.
    local function first(log, low, is)
        local high, probe, step = log.closed, low, 1
        while probe < high do
            if is(entry(log, probe)) then
                high = probe
            else
                low, probe, step = probe + 1, probe + step, step * 2
            end
        end
        while low < high do
            local middle = floor((low + high) / 2)
            if is(entry(log, middle)) then high = middle else low = middle + 1 end
        end
        return low
    end

    local function forget(log)
        log.base, log.last, log.total, log.head, log.closed, log.changed = zero, zero, zero, 0, 0, true
    end

    -- Makes entry i the oldest; `base`: the number of the one before it.
    local function begin_with(log, i, time, base)
        log.head, log.closed, log.oldest, log.base = (log.head + i) % log.room, log.closed - i, time, base
        log.total, log.changed = wrap(log.last - base), true
    end

    local function expire(log, upto)
        if log.newest <= upto then return forget(log) end
        if upto < log.oldest then return end
        -- Mostly a few at a time: one look at those that come first.
        local bytes, base = records(log, 0, least(LOOK, log.closed)), zero
        local seen = #bytes / width
        for i = 0, seen - 1 do
            local time, last = read_record(bytes, 1 + i * width)
            time = log.newest - (log.newest - time) % ages
            if upto < time then return begin_with(log, i, time, base) end
            base = last
        end
        local i = first(log, seen, function(time) return upto < time end)
        if seen < i then
            local _
            _, base = entry(log, i - 1)
        end
        begin_with(log, i, (entry(log, i)), base)
    end

    -- Brings the log to now. Returns the moment that counts: now, or a little later.
    local function settle(log)
        if log.total == zero then return now end
        local moment = now
        if now + SKEW < log.newest then
            log.closed = first(log, 0, function(time) return now < time end)
            log.newest, log.changed = now, true
            if log.closed == 0 then log.oldest = now end
        elseif now < log.newest then
            moment = log.newest
        end
        expire(log, moment - log.period)
        return moment
    end

    local function add(log, moment, cost)
        if log.total == zero then
            log.oldest, log.newest = moment, moment
        elseif log.newest < moment then
            if log.closed == ENTRIES_MAX then
                error('weir: ' .. key .. ' has too many hits for a moving window', 0)
            end
            log.fresh, log.fresh_time, log.fresh_last = true, log.newest, log.last
            log.closed, log.newest = log.closed + 1, moment
        end
        log.last, log.total, log.changed = wrap(log.last + cost), log.total + cost, true
    end

    local function take_back(log, cost)
        if log.total <= cost then return forget(log) end
        local left = log.total - cost
        local i = first(log, 0, function(_, last) return left <= wrap(last - log.base) end)
        log.newest, log.closed = entry(log, i), i
        log.last, log.total, log.changed = wrap(log.base + left), left, true
    end

    local function moving_window(log, charge, cost)
        take_up(log)
        local amount = log.amount
        local moment, allowed, retry = settle(log), true, 0
        if charge < 0 then
            if zero < cost then take_back(log, cost) end
        elseif amount < cost then
            allowed, retry = false, NEVER
        elseif amount - cost < log.total and zero < cost then
            local leave = log.total - (amount - cost)
            local i = first(log, 0, function(_, last) return leave <= wrap(last - log.base) end)
            allowed, retry = false, entry(log, i) + log.period - now
        elseif charge > 0 and zero < cost then
            add(log, moment, cost)
        end
        local remaining = log.total < amount and amount - log.total or zero
        local resets = zero < log.total and log.oldest + log.period or now
        return allowed, remaining, resets, retry
    end

    local function rewrite(log)
        local stored, body = log.closed - (log.fresh and 1 or 0), ''
        if stored > 0 then
            body = records(log, 0, stored)
            local rest = stored - #body / width
            if rest > 0 then body = body .. records(log, stored - rest, rest) end
        end
        if log.fresh then body = body .. write_record(log.fresh_time, log.fresh_last) end
        local more = log.closed == 0 and 0 or math.max(4, floor(log.closed / 4))
        log.head, log.room = 0, big and log.closed + more or least(log.closed + more, log.amount)
        return write_header(log) .. body .. string.rep('\0', log.room * width - #body)
    end

    local function keep_log(log)
        if not log.changed then return end
        take_up(log)
        if log.total == zero then
            if log.was ~= '' then call('DEL', key) end
            return
        end
        -- The key lives up to a quarter of a period longer than it must: most hits leave that time alone.
        local ends, same = log.newest + log.period, true
        if log.dies < ends or ends + log.period < log.dies then
            log.dies, same = ends + floor(log.period / 4), false
        end
        local ms = floor((log.dies - now + 999) / 1000)
        if given ~= 0 then ms = ms + 60000 end -- the server's clock goes on meanwhile
        if log.was == '' or log.room < log.closed or 4 * log.closed + 16 < log.room then
            call('SET', key, rewrite(log), 'PX', ms)
            return
        end
        if log.fresh then
            local at = start + (log.head + log.closed - 1) % log.room * width
            call('SETRANGE', key, at, write_record(log.fresh_time, log.fresh_last))
        end
        call('SETRANGE', key, '0', write_header(log))
        if not same then call('PEXPIRE', key, ms) end
    end
    return open, moving_window, keep_log
end

---------------------------------------------------------------------------------------------- main

local call, pack, take = redis.call, struct.pack, struct.unpack
local SKEW = 100000             -- µs that calls may arrive out of order
local LATEST = 9007199254740991 -- later, and longer, is said as this
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

-- Of each counter the bytes on the server, false: none; those to be; when its key shall be gone; whether that
-- changes.
local was, is = {false, false, false, false}, {false, false, false, false}
local dies, renew = {0, 0, 0, 0}, {false, false, false, false}
if plain == 1 then
    was[1] = call('GET', KEYS[1])
elseif plain > 1 then
    was = call('MGET', unpack(KEYS, 1, plain))
    for slot = 1, plain do
        -- MGET is silent about a key of another type, GET is not.
        if not was[slot] then call('GET', KEYS[slot]) end
    end
end

local big, scale, open_log, moving_window, keep_log -- made when needed
local asked = mode == 1 and {} -- of each counter what earlier checks would have taken: nothing is charged
local whole = mode == 3 and -1 or mode == 1 and 0 or 1 -- 1: charge what is allowed; -1: give back
local denied, first, second = false, '', ''

for round = 1, 2 do
    local at = first_check
    for slot = 1, plain do is[slot], renew[slot] = was[slot], false end
    for slot = plain + 1, #KEYS do is[slot] = false end
    for _ = 1, checks do
        if #args < at + 41 then malformed('too short') end
        local kind, slot, cost, amount, x, y, z, after = take('<BBddddd', args, at)
        local wide, zero, one, period, charge = false, 0, 1, x, whole
        at = after
        local look = kind > 31
        if look then kind, charge = kind - 32, 0 end
        if kind > 15 then
            if #args < after + 44 then malformed('too short') end
            big = big or make_big(pack, take, malformed)
            cost, amount, x, y, z = big.arguments(args, after)
            wide, zero, one, kind, at = true, big.zero, big.one, kind - 16, after + 45
        end
        if slot < 1 or slot > #KEYS or (kind == 1) ~= (slot > plain) then malformed('place ' .. slot) end
        -- "not", since NaN is neither below nor above anything. Wide numbers are never negative.
        if not (wide or 0 <= cost and cost <= LATEST and 0 <= amount and amount <= LATEST and 0 <= x and
            x <= LATEST and 0 <= y and y <= LATEST and 0 <= z and z <= LATEST) then
            malformed('numbers')
        end
        if asked and asked[slot] then
            cost = cost + asked[slot]
            local max = wide and big.max or LATEST
            if max < cost then cost = max end
        end
        if round == 2 then cost = zero end
        local value = is[slot]
        if value and kind ~= 1 and #value ~= (kind == 0 and (wide and 26 or 16) or
            wide and (kind == 2 and 44 or 34) or 24) then
            error('weir: ' .. KEYS[slot] .. ' holds something that is not a counter', 0)
        end
        local allowed, retry, delay, remaining, resets = true, 0, 0, zero, now

        if kind == 0 then -- fixed window: its end, its hits
            if x == zero then malformed('period') end
            local ends, used, opens = 0, zero, true
            if value then
                if wide then ends, used = big.read(value, 1, 1) else ends, used = take('<dd', value) end
                if amount < used then used = amount end
                if ends <= now then
                    ends, used = 0, zero
                elseif ends - now > period then
                    ends = now + period
                else
                    opens = false
                end
            end
            if charge < 0 then
                used = cost < used and used - cost or zero
            elseif amount - used < cost then
                allowed, retry = false, amount < cost and NEVER or ends - now
            elseif charge > 0 and zero < cost then
                if used == zero then ends = now + period end
                used = used + cost
            end
            remaining = amount - used
            if used == zero then
                is[slot] = false
            else
                resets, dies[slot], renew[slot] = ends, ends, renew[slot] or opens
                is[slot] = wide and big.write(ends, used) or pack('<dd', ends, used)
            end

        elseif kind == 1 then -- moving window
            if not moving_window then
                open_log, moving_window, keep_log = make_logs(call, pack, take, now, given)
            end
            if x == zero then malformed('period') end
            value = value or open_log(slot, amount, period, y, z, wide and big)
            allowed, remaining, resets, retry = moving_window(value, charge, cost)
            is[slot] = value

        elseif kind == 2 then -- sliding window counter: the window's index, its hits, those of the one before
            if x == zero then malformed('period') end
            scale = scale or make_scale()
            local index, moment, opens = (now - now % period) / period, now, true
            local cur, prev = zero, zero
            if value then
                local its, a, b
                if wide then its, a, b = big.read(value, 1, 2) else its, a, b = take('<ddd', value) end
                if amount < a then a = amount end
                if amount < b then b = amount end
                if its == index + 1 and its * period - now <= SKEW then
                    index, moment = its, its * period
                end
                if its == index then
                    cur, prev, opens = a, b, a == zero
                elseif its > index then
                    cur = a + b
                    if amount < cur then cur = amount end
                elseif its == index - 1 then
                    prev = a
                end
            end
            local stop = (index + 1) * period
            local left = x - (moment - index * period)
            local used, rest = scale(prev, left, x)
            used = zero < rest and cur + used + one or cur + used -- rounded up
            if charge < 0 then
                local part = cost < cur and cost or cur
                cur, rest = cur - part, cost - part
                prev = rest < prev and prev - rest or zero
                used, rest = scale(prev, left, x)
                used = zero < rest and cur + used + one or cur + used
                opens = opens or cur == zero
            elseif zero < cost and amount - cost < used then
                allowed, retry = false, NEVER
            elseif charge > 0 then
                cur, used = cur + cost, used + cost
            end
            remaining = used < amount and amount - used or zero
            local any = zero < cur or zero < prev
            -- When is there room for `wanted`? Asked for what was denied, and for one more than remains.
            for question = allowed and 2 or 1, any and 2 or 1 do
                local wanted = question == 1 and cost or remaining + one
                if wanted <= amount then
                    local room, when = amount - wanted, nil
                    if cur <= room then
                        if prev <= room - cur then
                            when = moment
                        else -- prev slides out until stop
                            local shorter = scale(room - cur, x, prev)
                            if wide then shorter = big.time(shorter) end
                            if shorter > 0 then when = stop - shorter end
                            if when and when < moment then when = moment end
                        end
                    end
                    if not when then -- cur slides out after it
                        when = stop
                        if room < cur then
                            local shorter = scale(room, x, cur)
                            if wide then shorter = big.time(shorter) end
                            when = stop + period - shorter
                        end
                    end
                    if question == 1 then retry = when - now else resets = when end
                end
            end
            if any then
                dies[slot], renew[slot] = zero < cur and stop + period or stop, renew[slot] or opens
                is[slot] = wide and big.write(index, cur, prev) or pack('<ddd', index, cur, prev)
            else
                is[slot] = false
            end

        elseif kind == 3 or kind == 4 then
            -- Buckets: when the key is gone, the time of the last look, the level then. The key lives up
            -- to a period longer than it must: most hits leave that time alone.
            --
            -- y: units drained in a µs; z: units of a hit; x: tokens, or the longest wait that is admitted.
            if z == zero then malformed('units of a hit') end
            local level, gone, changed, token = zero, 0, false, kind == 3
            local size = x * (token and z or y)
            if value and zero < y then
                local last
                if wide then gone, last, level = big.read(value, 2, 1) else gone, last, level = take('<ddd', value) end
                local most, some = size + (token and amount - one or amount) * z, zero < level
                if most < level then level, changed = most, true end
                if last <= now then
                    local drained = y * (now - last)
                    level = drained < level and level - drained or zero
                elseif some then
                    level = level + y * (last - now)
                end
                if most < level then level, changed = most, true end
                changed = changed or some and level == zero
            end
            if charge < 0 then
                local back = cost * z
                level, changed = back < level and level - back or zero, true
            elseif zero < cost then
                local added = level + cost * z
                local asks = token and added or level
                if (token and x or amount) < cost then
                    allowed, retry = false, NEVER
                elseif size < asks then
                    retry = asks - size + (y - one)
                    allowed, retry = false, (retry - retry % y) / y
                    if wide then retry = big.time(retry) end
                else
                    if not token and zero < level then
                        delay = level + (y - one)
                        delay = (delay - delay % y) / y
                        if wide then delay = big.time(delay) end
                    end
                    if charge > 0 then level, changed = added, true end
                end
            end
            if token then
                if level < size then
                    local taken = level + (z - one)
                    remaining = x - (taken - taken % z) / z
                end
            elseif zero < amount and level <= size then
                remaining = (size - level - (size - level) % z) / z
                remaining = remaining < amount and remaining + one or amount
            end
            if zero < level then
                local drains = level + (y - one)
                drains = (drains - drains % y) / y
                if wide then drains = big.time(drains) end
                resets = now + drains
            end
            if changed then
                if zero < level then
                    local whole = amount * z / y
                    if wide then whole = big.time(whole) end
                    if gone < resets or resets + whole < gone then
                        gone, renew[slot] = resets + whole, true
                    end
                    dies[slot] = gone
                    is[slot] = wide and big.write(gone, now, level) or pack('<ddd', gone, now, level)
                else
                    is[slot] = false
                end
            end

        else
            malformed('unknown strategy ' .. kind)
        end

        if asked and allowed and not look then asked[slot] = cost end
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
        if not is[slot] then malformed('a name that no check uses') end
    end
    -- A denial takes back what the others were charged: their verdicts then describe uncharged counters. A
    -- hit of cost 0 charges nothing, but brings a counter to the present.
    if round == 2 or not denied or mode ~= 0 or checks == 1 then break end
    second = ''
end

if mode ~= 1 then
    for slot = 1, plain do
        local key, value = KEYS[slot], is[slot]
        if value == was[slot] then -- nothing to do
        elseif not value then
            call('DEL', key)
        elseif was[slot] and not renew[slot] then
            call('SETRANGE', key, '0', value)
        else
            local ms = (dies[slot] - now + 999) / 1000
            if ms < 1 then ms = 1 end
            if given ~= 0 then ms = ms + 60000 end -- the server's clock goes on meanwhile
            call('SET', key, value, 'PX', ms - ms % 1)
        end
    end
    for slot = plain + 1, #KEYS do keep_log(is[slot]) end
end
return pack('<d', now) .. first .. second
