-- wrk's requests: POSTs that move a cent between random wallets, each with its own Idempotency-Key.
--
--   wrk … -s requests.lua URL -- OPERATION WALLETS HOT RATE SEED
--
-- OPERATION  transfer, fund, or mixed: each request is one of the two, by chance; or batch or atomic: each request has
--            100 transfers, each with its own key, or all with one and all or none of them done
-- WALLETS    a file with one wallet id a line
-- HOT        all for any wallet; one: only the first wallet sends, or is funded
-- RATE       requests a second on a schedule that waits for no reply; 0: as fast as replies come
-- SEED       a number; another number gives other keys
--
-- The API key is in the environment, as WALLET_API_KEY.
--
-- Prints one line of JSON after "RESULT ".
local ffi = require("ffi")
ffi.cdef [[
    struct bench_time { long seconds; long nanoseconds; };
    int clock_gettime(int clock, struct bench_time *now);
]]
local CLOCK_MONOTONIC = 1
local now_struct = ffi.new("struct bench_time")

local function now_ms()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, now_struct)
    return tonumber(now_struct.seconds) * 1e3 + tonumber(now_struct.nanoseconds) / 1e6
end

local BATCH_OPERATIONS = 100

local ids, headers = {}, {["Content-Type"] = "application/json"}
local operation, hot, rate
local first_ms, taken = nil, 0
statuses, late_ms_max = {}, 0
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    operation, hot, rate = arguments[1], arguments[3] == "one", tonumber(arguments[4])
    for id in io.lines(arguments[2]) do
        table.insert(ids, id)
    end
    headers["Authorization"] = "Bearer " .. os.getenv("WALLET_API_KEY")
    math.randomseed(tonumber(arguments[5]))
    -- wrk calls delay() only if it is defined.
    if rate == 0 then
        delay = nil
    end
end

-- Each request takes the next slot of the schedule, whichever connection sends it.
function delay()
    local now = now_ms()
    first_ms = first_ms or now
    local slot = first_ms + taken * 1e3 / rate
    taken = taken + 1
    if now > slot then
        late_ms_max = math.max(late_ms_max, now - slot)
        return 0
    end
    return math.floor(slot - now + 0.5)
end

local function random_hex(digits)
    return string.format("%0" .. digits .. "x", math.random(0, 16 ^ digits - 1))
end

local function key()
    return table.concat({random_hex(8), random_hex(4), random_hex(4), random_hex(4), random_hex(12)}, "-")
end

local function transfer(wallet)
    local other = (wallet + math.random(#ids - 1) - 1) % #ids + 1
    return '"to_wallet_id":"' .. ids[other] .. '","amount":"0.01"'
end

local function batch()
    local items = {}
    for number = 1, BATCH_OPERATIONS do
        local wallet = math.random(#ids)
        local own_key = operation == "batch" and ',"key":"' .. key() .. '"' or ""
        items[number] = '{"op":"transfer","wallet_id":"' .. ids[wallet] .. '",' .. transfer(wallet) .. own_key .. '}'
    end
    local is_atomic = operation == "atomic" and "true" or "false"
    return '{"atomic":' .. is_atomic .. ',"operations":[' .. table.concat(items, ",") .. ']}'
end

function request()
    headers["Idempotency-Key"] = operation ~= "batch" and key() or nil
    if operation == "batch" or operation == "atomic" then
        return wrk.format("POST", "/batches", headers, batch())
    end
    local wallet = hot and 1 or math.random(#ids)
    local route = operation
    if operation == "mixed" then
        route = math.random(2) == 1 and "fund" or "transfer"
    end
    local body = '{"amount":"0.01"}'
    if route == "transfer" then
        body = "{" .. transfer(wallet) .. "}"
    end
    return wrk.format("POST", "/wallets/" .. ids[wallet] .. "/" .. route, headers, body)
end

-- Of a batch each operation counts. If the batch is refused, that is an answer to each of them.
function response(status, _, body)
    if operation ~= "batch" and operation ~= "atomic" then
        statuses[status] = (statuses[status] or 0) + 1
    elseif status ~= 200 and status ~= 207 then
        statuses[status] = (statuses[status] or 0) + BATCH_OPERATIONS
    else
        for found in body:gmatch('{"status":(%d+),') do
            local own = tonumber(found)
            statuses[own] = (statuses[own] or 0) + 1
        end
    end
end

function done(summary, latency, requests)
    local counts, late = {}, 0
    for _, thread in ipairs(threads) do
        for status, count in pairs(thread:get("statuses")) do
            counts[status] = (counts[status] or 0) + count
        end
        late = math.max(late, thread:get("late_ms_max"))
    end
    local by_status, percentiles = {}, {}
    for status, count in pairs(counts) do
        table.insert(by_status, string.format('"%d":%d', status, count))
    end
    for _, percent in ipairs({50, 75, 90, 95, 99, 99.9}) do
        table.insert(percentiles, string.format('"%g":%.3f', percent, latency:percentile(percent) / 1e3))
    end
    table.insert(percentiles, string.format('"100":%.3f', latency.max / 1e3))
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"seconds":%.6f,"statuses":{%s},"latency_ms":{%s},"late_ms_max":%.3f,"broken":%d}\n',
        summary.duration / 1e6, table.concat(by_status, ","), table.concat(percentiles, ","), late,
        errors.connect + errors.read + errors.write + errors.timeout
    ))
end
