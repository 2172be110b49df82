-- Leaky bucket: the level that has to drain before the next request. x: the longest wait; y, z: see level_found.lua.
--@holds 24 34
local size, slack = x * y, amount * z
--@include level_found.lua
if charge >= 0 and zero < cost then
    if amount < cost then
        allowed, retry = false, NEVER
    elseif size < level then
        retry = level - size + (y - one)
        allowed, retry = false, (retry - retry % y) / y
        if wide then retry = big.time(retry) end
    else
        if zero < level then
            delay = level + (y - one)
            delay = (delay - delay % y) / y
            if wide then delay = big.time(delay) end
        end
        if charge > 0 then level, changed = level + cost * z, true end
    end
end
if zero < amount and level <= size then
    remaining = (size - level - (size - level) % z) / z
    remaining = remaining < amount and remaining + one or amount
end
--@include level_kept.lua
