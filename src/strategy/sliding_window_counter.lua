-- Sliding window counter: the window's index, its hits, the hits of the previous window. x: the period.
--@holds 24 44
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
-- The time at which `wanted` fits. Computed for the cost if it was denied, and for one hit more than remains.
for question = allowed and 2 or 1, any and 2 or 1 do
    local wanted = question == 1 and cost or remaining + one
    if wanted <= amount then
        local room, when = amount - wanted, nil
        if cur <= room then
            if prev <= room - cur then
                when = moment
            else -- the weight of prev decreases until stop
                local shorter = scale(room - cur, x, prev)
                if wide then shorter = big.time(shorter) end
                if shorter > 0 then when = stop - shorter end
                if when and when < moment then when = moment end
            end
        end
        if not when then -- then the weight of cur decreases
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
    expires[slot], renew[slot] = zero < cur and stop + period or stop, renew[slot] or opens
    next_value[slot] = wide and big.write(index, cur, prev) or pack('<ddd', index, cur, prev)
else
    next_value[slot] = false
end
