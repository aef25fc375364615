-- What member tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Merchants, users and cards as they were asked for. Of a card no more than its last four digits.
SELECT h.at, 'call' AS kind, h.noun || ' ' || h.id AS subject,
    CASE h.noun WHEN 'merchant' THEN 'RegisterMerchant' WHEN 'user' THEN 'CreateUser'
        ELSE 'BindCard' END AS summary,
    jsonb_build_object('actor', h.actor, 'request_id', h.cause,
        'merchant_id', coalesce(u.merchant_id, c.merchant_id, ''), 'user_id', c.user_id,
        'last_four', c.last_four, 'bank_code', c.bank_code) AS details
FROM history AS h
LEFT JOIN users AS u ON h.noun = 'user' AND u.id = h.id
LEFT JOIN cards AS c ON h.noun = 'card' AND c.id = h.id
WHERE h.biz_trace_id = $1 AND h.biz_trace_id <> '' AND h.version = 1
    AND h.noun IN ('merchant', 'user', 'card') AND h.at >= $2
ORDER BY h.at
FETCH FIRST ($3) ROWS WITH TIES;
