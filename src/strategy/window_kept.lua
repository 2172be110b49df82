-- Windows: decides, then sets the bytes to store. ends: the end of the window in which the hit would be counted; used:
-- the hits in it; opens: whether the key expires at another time than before.
if charge < 0 then
    used = cost < used and used - cost or zero
elseif amount - used < cost then
    allowed, retry = false, amount < cost and NEVER or ends - now
elseif charge > 0 and zero < cost then
    used = used + cost
end
remaining = amount - used
if used == zero then
    next_value[slot] = false
else
    resets, expires[slot], renew[slot] = ends, ends, renew[slot] or opens
    next_value[slot] = wide and big.write(ends, used) or pack('<dd', ends, used)
end
