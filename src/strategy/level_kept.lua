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
        if gone < resets or resets + whole < gone then
            gone, renew[slot] = resets + whole, true
        end
        dies[slot] = gone
        is[slot] = wide and big.write(gone, now, level) or pack('<ddd', gone, now, level)
    else
        is[slot] = false
    end
end
