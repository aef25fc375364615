-- Confirms or releases what an action has reserved; to do it twice changes nothing.
-- Confirmed is final: a release that comes after it is late news. A confirmation counts again what
-- had fallen away or had been released, also above the limit: it has happened.
-- KEYS: the action (the counters are named in its hash, in the same slot).
-- ARGV: now in ms, action id, confirmed (1) or released (0).
-- Answers 1 when the action is known, 0 when it is not (Redis has lost it, or it never reserved).
local now, action, confirmed = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local known = redis.call('HMGET', KEYS[1], 'answer', 'state', 'uses')
if known[1] ~= 'PASS' then
    return 0
end
if known[2] == 'CONFIRMED' or (known[2] == 'RELEASED' and not confirmed) then
    return 1
end
for _, use in ipairs(cjson.decode(known[3])) do
    local entries, total, amount, kept_until, ends = use[1], use[2], use[3], use[4], use[5]
    local member = action .. '|' .. amount
    if kept_until ~= '0' then -- attempts stay as they are
        if confirmed and tonumber(ends) > now then
            if redis.call('ZADD', entries, kept_until, member) == 1 then
                redis.call('INCRBY', total, amount)
            end
            local life = string.format('%.0f', tonumber(ends) - now + 60000)
            redis.call('PEXPIRE', entries, life)
            redis.call('PEXPIRE', total, life)
        elseif not confirmed and redis.call('ZREM', entries, member) == 1 then
            redis.call('DECRBY', total, amount)
        end
    end
end
redis.call('HSET', KEYS[1], 'state', confirmed and 'CONFIRMED' or 'RELEASED')
return 1
