-- Calendar window: its end, its hits. x: the start of the window at the caller's time; y: its end; z: the end of the
-- next window. The server's time may be in a later window: those are assumed to be as long as the last of these.
--@holds 16 26
if wide then x, y, z = big.time(x), big.time(y), big.time(z) end
if not (x < y and y < z) then malformed('window') end
local ends, after, used, opens = y, z, zero, true
if now < x then
    ends, after = x, y
elseif y <= now then
    ends, after = z, z + z - y
    if z <= now then
        ends = after + now - z - (now - z) % (z - y)
        after = ends + z - y
    end
end
if value then
    local old_end
    if wide then old_end, used = big.read(value, 1, 1) else old_end, used = take('<dd', value) end
    if amount < used then used = amount end
    if old_end <= now then
        used = zero
    else
        if old_end == after and ends - now <= SKEW then ends = after end
        opens = old_end ~= ends
    end
end
--@include window_kept.lua
