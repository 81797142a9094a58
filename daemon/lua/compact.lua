-- compact.lua - puts the record in place of the events it was folded from.
--
-- KEYS[1] the log   see observe.lua
-- ARGV    1 generation, 2 offset up to which the record has it, 3 id before that
--         4 generation of the new log, 5 the record as an event
-- answer  1; 0: the log is another one by now, nothing was changed
local log, cut = KEYS[1], tonumber(ARGV[2])
if redis.call('GETRANGE', log, 0, 7) ~= ARGV[1] or redis.call('STRLEN', log) < cut or
        redis.call('GETRANGE', log, cut - 8, cut - 1) ~= ARGV[3] then
    return 0
end
local tail = redis.call('GETRANGE', log, cut, -1)
redis.call('SET', log, ARGV[4] .. ARGV[5] .. tail, 'KEEPTTL')
return 1
