-- Token bucket: the level of the used tokens. x: size in tokens; y, z: see level_found.lua.
--@holds 24 34
local size, slack = x * z, (amount - one) * z
--@include level_found.lua
if charge >= 0 and zero < cost then
    local added = level + cost * z
    if x < cost then
        allowed, retry = false, NEVER
    elseif size < added then
        retry = added - size + (y - one)
        allowed, retry = false, (retry - retry % y) / y
        if wide then retry = big.time(retry) end
    elseif charge > 0 then
        level, changed = added, true
    end
end
if level < size then
    local taken = level + (z - one)
    remaining = x - (taken - taken % z) / z
end
--@include level_kept.lua
