-- The log of a moving window: one string, a header and a ring of records.
--
--     expires oldest newest base last head closed room | record record record ...
--
-- An entry is a time and a number: the hits up to and including this entry, from an arbitrary start, modulo a
-- power of two. `base` is that number before the oldest entry. The newest entry is open: it is only in the header
-- (newest, last), so that hits at the same moment merge. The `closed` entries before it are records in a ring
-- of `room` records that starts at `head`. A record has the lower bytes of the time and of the number, as many as
-- period and amount need. A hit writes one record and the header. Expired entries are found by bisection
-- and dropped by moving `head`. To grow by a quarter, or to shrink, the ring is rewritten.
--
-- The length is bounded, so rewriting a log never blocks the server for long: with MANY records or more, a hit joins
-- the open entry, which moves to the hit's time, if the last record is less than period / MANY old. So a window
-- has at most three times MANY records. Moved hits expire later than they would otherwise, never earlier.
local function make_logs(call, pack, take, now, given)
    local ENTRIES_MAX, MANY, BATCH, SKEW, NEVER = 16777216, 131072, 8, 100000, -1
    local floor, least, char = math.floor, math.min, string.char
    local key, big, zero, record, header, width, start, ages, hits -- of the current log

    -- Computed once for each log: formatting a number costs as much as half a command.
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
            return pack('<ddd', log.expires, log.oldest, log.newest) .. big.write_short(log.base) ..
                big.write_short(log.last) .. pack('<I4I4I4', log.head, log.closed, log.room)
        end
        return pack(header, log.expires, log.oldest, log.newest, log.base, log.last, log.head, log.closed,
            log.room)
    end

    local function foreign()
        error('weir: ' .. key .. ' holds something that is not a counter', 0)
    end

    local function open(slot, amount, period, time_bytes, hit_bytes, wide)
        local log = {
            key = KEYS[slot], big = wide, amount = amount, period = period, old_value = '', changed = false,
            fresh = false, total = 0, expires = 0, oldest = 0, newest = 0, base = 0, last = 0, head = 0,
            closed = 0, room = 0,
        }
        lay_out(log, time_bytes, hit_bytes)
        take_up(log)
        local old_value = call('GETRANGE', key, '0', '53') -- the longest header; may include records
        log.old_value = old_value
        if old_value == '' then
            log.base, log.last = zero, zero
        elseif #old_value < start then
            foreign()
        elseif big then
            log.expires, log.oldest, log.newest = take('<ddd', old_value)
            log.base, log.last = big.read_short(old_value, 25), big.read_short(old_value, 34)
            log.head, log.closed, log.room = take('<I4I4I4', old_value, 43)
        else
            log.expires, log.oldest, log.newest, log.base, log.last, log.head, log.closed, log.room =
                take(header, old_value)
        end
        if log.room < log.closed or ENTRIES_MAX * 2 < log.room then foreign() end
        log.total = wrap(log.last - log.base)
        return log
    end

    -- Reads `count` records from entry i on, or fewer: those up to the ring's end.
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
    -- The first entry from `low` on for which `reached` returns true. It is true for all later entries, too.
    local function first(log, low, reached)
        local high, probe, step = log.closed, low, 1
        while probe < high do
            if reached(entry(log, probe)) then
                high = probe
            else
                low, probe, step = probe + 1, probe + step, step * 2
            end
        end
        while low < high do
            local middle = floor((low + high) / 2)
            if reached(entry(log, middle)) then high = middle else low = middle + 1 end
        end
        return low
    end

    local function empty(log)
        log.base, log.last, log.total, log.head, log.closed, log.changed = zero, zero, zero, 0, 0, true
    end

    -- Makes entry i the oldest; `base`: the number of the one before it.
    local function begin_with(log, i, time, base)
        log.head, log.closed, log.oldest, log.base = (log.head + i) % log.room, log.closed - i, time, base
        log.total, log.changed = wrap(log.last - base), true
    end

    local function expire(log, upto)
        if log.newest <= upto then return empty(log) end
        if upto < log.oldest then return end
        -- Usually only a few have expired: read the first ones in one call.
        local bytes, base = records(log, 0, least(BATCH, log.closed)), zero
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

    -- Updates the log to now. Returns the effective time: now, or a little later.
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
        elseif log.newest < moment and MANY <= log.closed and
            moment - (entry(log, log.closed - 1)) < log.period / MANY then
            log.newest = moment
        elseif log.newest < moment then
            log.fresh, log.fresh_time, log.fresh_last = true, log.newest, log.last
            log.closed, log.newest = log.closed + 1, moment
        end
        log.last, log.total, log.changed = wrap(log.last + cost), log.total + cost, true
    end

    local function take_back(log, cost)
        if log.total <= cost then return empty(log) end
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
            if log.old_value ~= '' then call('DEL', key) end
            return
        end
        -- The key is kept up to a quarter of a period longer than needed, so most hits need not change its expiry.
        local ends, same = log.newest + log.period, true
        if log.expires < ends or ends + log.period < log.expires then
            log.expires, same = ends + floor(log.period / 4), false
        end
        local ms = floor((log.expires - now + 999) / 1000)
        if given ~= 0 then ms = ms + 60000 end -- the server's clock continues
        if log.old_value == '' or log.room < log.closed or 4 * log.closed + 16 < log.room then
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
