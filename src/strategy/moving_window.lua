-- Moving window: see log/log.lua. x: the period; y, z: bytes of a record's time and number.
--@holds a log
if not moving_window then
    open_log, moving_window, keep_log = make_logs(call, pack, take, now, given)
end
if x == zero then malformed('period') end
value = value or open_log(slot, amount, period, y, z, wide and big)
allowed, remaining, resets, retry = moving_window(value, charge, cost)
next_value[slot] = value
