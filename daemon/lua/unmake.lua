-- unmake.lua - takes back a log that nobody else has put anything on.
--
-- KEYS[1] the log   see observe.lua
-- ARGV    1 its generation, 2 its bytes as its maker left it
-- answer  1; 0: it stays
local log = KEYS[1]
if redis.call('STRLEN', log) ~= tonumber(ARGV[2]) or
        redis.call('GETRANGE', log, 0, 7) ~= ARGV[1] then
    return 0
end
redis.call('DEL', log)
return 1
