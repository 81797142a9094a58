-- observe.lua - tells what a node does not have of the log of a message, and puts its events on it.
--
-- KEYS[1] the log   generation[8] then events, each length[4] bytes id[8]; numbers little-endian
-- ARGV    1 generation, 2 offset and 3 id before it: what the node has; offset -1: it wants nothing
--         4 events that make the log if there is none; empty: it is not made
--         5 events that go on it if there is one
--         6 ms it lives at least, 7 generation of a new one, 8 most bytes it may have
--         9 "1": events of 5 that are there already, by their id, are left out, and the answer has
--           those that were put on it too
--         10 id of an event the node has sent before on this connection: what is up to there it is
--           being told already; empty: none
-- answer  how, generation, offset the bytes begin at, bytes
--         GONE: there is none   MADE   HERE   FULL: nothing was put on it
--
-- Whatever else lies under our key is put aside, not deleted.
local log, from, more = KEYS[1], tonumber(ARGV[2]), ARGV[5]
local size = redis.pcall('STRLEN', log)
if type(size) == 'table' then
    redis.call('RENAME', log, log .. ':odd')
    size = 0
end
if size < 8 then
    if #ARGV[4] == 0 then return {'GONE'} end
    redis.call('SET', log, ARGV[7] .. ARGV[4], 'PX', ARGV[6])
    return {'MADE', ARGV[7], 8, ''}
end
local generation = redis.call('GETRANGE', log, 0, 7)
if from >= 0 and not (from >= 16 and generation == ARGV[1] and size >= from and
        redis.call('GETRANGE', log, from - 8, from - 1) == ARGV[3]) then
    from = 8
end
local bytes
if #ARGV[10] == 8 and from >= 0 then -- mostly near the end; an id stands in its event, and behind it
    local tail = math.max(from, size - 4096)
    local last = redis.call('GETRANGE', log, tail, -1)
    local id = string.find(last, ARGV[10], 1, true)
    id = id and string.find(last, ARGV[10], id + 8, true)
    if id then
        from = tail + id + 7
        bytes = string.sub(last, id + 8)
    end
end
if not bytes then
    bytes = from >= 0 and size > from and redis.call('GETRANGE', log, from, -1) or ''
end
if ARGV[9] == '1' then
    local all, at, fresh = redis.call('GET', log), 1, {}
    while at + 12 <= #more do
        local stop = at + 11 + struct.unpack('<I4', more, at)
        if not string.find(all, string.sub(more, stop - 7, stop), 9, true) then
            fresh[#fresh + 1] = string.sub(more, at, stop)
        end
        at = stop + 1
    end
    more = table.concat(fresh)
    if from >= 0 and size + #more <= tonumber(ARGV[8]) then bytes = bytes .. more end
end
if #more > 0 then
    if size + #more > tonumber(ARGV[8]) then return {'FULL', generation, from, bytes} end
    redis.call('APPEND', log, more)
    if redis.call('PTTL', log) < tonumber(ARGV[6]) then
        redis.call('PEXPIRE', log, ARGV[6])
    end
end
return {'HERE', generation, from, bytes}
