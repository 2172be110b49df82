-- One kind of client for wrk, see bench/load.py:
--
--     wrk -t1 -c4 -d10s -s load.lua URL -- KIND
--
-- polite     a thousand clients in rotation, with pauses
-- bursting   twenty clients in rotation; each sends 30 requests in a row
-- hammering  one client that sends as fast as it can
-- anybody    as many clients as requests, as fast as possible: no client reaches a limit
--
-- Each client is an address in X-Forwarded-For. The last line printed is the result, as JSON.

local kinds = {
    polite = {clients = 1000, row = 1, pause = 20},
    bursting = {clients = 20, row = 30, pause = 0},
    hammering = {clients = 1, row = 1, pause = 0},
    anybody = {clients = 60000, row = 1, pause = 0},
}
local network = {polite = "10.1", bursting = "10.2", hammering = "10.3", anybody = "10.4"}

local threads = {}

function setup(thread)
    table.insert(threads, thread)
    thread:set("number", #threads)
end

function init(args)
    name = args[1] or "anybody"
    kind = kinds[name]
    if kind == nil then
        error("no kind of client: " .. name)
    end
    sent, admitted, denied, failed = 0, 0, 0, 0
end

function delay()
    return kind.pause
end

function request()
    local client = math.floor(sent / kind.row) % kind.clients
    sent = sent + 1
    local address = network[name] .. "." .. math.floor(client / 250) .. "." .. (client % 250 + 1)
    return wrk.format("GET", nil, {["X-Forwarded-For"] = address})
end

function response(status)
    if status == 200 then
        admitted = admitted + 1
    elseif status == 429 then
        denied = denied + 1
    else
        failed = failed + 1
    end
end

function done(summary, latency)
    local sums = {admitted = 0, denied = 0, failed = 0}
    for _, thread in ipairs(threads) do
        for what in pairs(sums) do
            sums[what] = sums[what] + thread:get(what)
        end
    end
    local broken = summary.errors.connect + summary.errors.read + summary.errors.write
    print(string.format(
        '{"seconds": %f, "admitted": %d, "denied": %d, "failed": %d, "broken": %d, '
            .. '"timeouts": %d, "p50_ms": %f, "p99_ms": %f}',
        summary.duration / 1e6, sums.admitted, sums.denied, sums.failed, broken,
        summary.errors.timeout, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
