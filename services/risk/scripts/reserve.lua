-- Judges one action by its counters and reserves what it uses of them, all or nothing.
-- A counter is a sorted set (member `action|amount`, score: when the entry falls away, in ms) and
-- a total of its entries. The action's hash keeps the verdict, so a repeat gets the same one.
-- KEYS: the action, then for each use its set and its total.
-- ARGV: now in ms, action id, life of the action's hash in ms, forced (1: count whatever the
--       limits say), then for each use: code, amount, limit, held until, kept until, counter ends.
local now, action = tonumber(ARGV[1]), ARGV[2]
local forced = ARGV[4] == '1'
local prior = redis.call('HGET', KEYS[1], 'answer')
if prior and (prior == 'PASS' or not forced) then
    return prior
end
local function total_of(entries, total)
    local gone = redis.call('ZRANGEBYSCORE', entries, '-inf', now)
    if #gone == 0 then
        return tonumber(redis.call('GET', total) or '0')
    end
    local sum = 0
    for _, member in ipairs(gone) do
        sum = sum + tonumber(string.match(member, '|(%d+)$'))
    end
    redis.call('ZREMRANGEBYSCORE', entries, '-inf', now)
    return redis.call('DECRBY', total, string.format('%.0f', sum))
end
local uses, broken = (#KEYS - 1) / 2, {}
for i = 1, uses do
    local at = 4 + (i - 1) * 6
    local total = total_of(KEYS[2 * i], KEYS[2 * i + 1])
    if total + tonumber(ARGV[at + 2]) > tonumber(ARGV[at + 3]) then
        table.insert(broken, ARGV[at + 1])
    end
end
local answer = 'PASS'
if #broken > 0 and not forced then
    answer = 'BLOCK:' .. table.concat(broken, ',')
else
    local kept = {}
    for i = 1, uses do
        local at = 4 + (i - 1) * 6
        local entries, total, amount, ends =
            KEYS[2 * i], KEYS[2 * i + 1], ARGV[at + 2], ARGV[at + 6]
        if redis.call('ZADD', entries, ARGV[at + 4], action .. '|' .. amount) == 1 then
            redis.call('INCRBY', total, amount)
        end
        -- A length of time, not an instant: Redis's clock may be ahead of the service's, and must
        -- never let a counter fall away early. What has ended is told by the scores.
        local life = string.format('%.0f', tonumber(ends) - now + 60000)
        redis.call('PEXPIRE', entries, life)
        redis.call('PEXPIRE', total, life)
        table.insert(kept, { entries, total, amount, ARGV[at + 5], ends })
    end
    redis.call('HSET', KEYS[1], 'state', 'RESERVED', 'uses', cjson.encode(kept))
end
redis.call('HSET', KEYS[1], 'answer', answer)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return answer
