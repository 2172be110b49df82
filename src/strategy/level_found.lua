-- Buckets: the expiry of the key, the time of the last request, the level at that time. Computes the level at `now`.
-- The key is kept up to a period longer than needed, so most hits need not change its expiry.
--
-- y: units drained per µs; z: units of a hit; size: the level of a full bucket; slack: how much the level may
-- exceed `size` if the clock stepped back.
if z == zero then malformed('units of a hit') end
local level, expiry, changed = zero, 0, false
if value and zero < y then
    local last
    if wide then expiry, last, level = big.read(value, 2, 1) else expiry, last, level = take('<ddd', value) end
    local most, some = size + slack, zero < level
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
end
