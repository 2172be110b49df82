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
if used == zero then ends = now + period end
--@include window_kept.lua
