-- Fixed window: its end, its hits. x: the period.
--@holds 16 26
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
