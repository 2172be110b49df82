-- Buckets: the time at which the level is zero, and the bytes to store.
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
        if expiry < resets or resets + whole < expiry then
            expiry, renew[slot] = resets + whole, true
        end
        expires[slot] = expiry
        next_value[slot] = wide and big.write(expiry, now, level) or pack('<ddd', expiry, now, level)
    else
        next_value[slot] = false
    end
end
