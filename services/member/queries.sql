-- Merchants, keys, users, cards.

-- name: add_merchant
-- Register a merchant; no row when its request or number is known.
INSERT INTO merchants (id, tenant_id, mode, merchant_no, name, status, currency_codes, request_id,
    actor, biz_trace_id, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'OPENING', $6, $7, $8, $9, 1, $10, $10)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_merchant_again
-- The merchant that a registration collided with: of the same request first.
SELECT id, tenant_id, mode, merchant_no, name, status, currency_codes, request_id, actor,
    biz_trace_id, version, created_at, updated_at
FROM merchants
WHERE tenant_id = $1 AND (request_id = $2 OR merchant_no = $3)
ORDER BY request_id = $2 DESC
LIMIT 1;

-- name: find_merchant
-- One merchant.
SELECT id, tenant_id, mode, merchant_no, name, status, currency_codes, request_id, actor,
    biz_trace_id, version, created_at, updated_at
FROM merchants
WHERE id = $1 AND tenant_id = $2;

-- name: move_merchant
-- Change a merchant's status, if it is still as it was seen.
UPDATE merchants SET status = $3, version = version + 1, updated_at = $4
WHERE id = $1 AND version = $2
RETURNING id, tenant_id, mode, merchant_no, name, status, currency_codes, request_id, actor,
    biz_trace_id, version, created_at, updated_at;

-- name: add_status_change
-- Remember what was asked for under a request's id; no row when it is known.
INSERT INTO merchant_status_changes (tenant_id, request_id, merchant_id, status, reason, actor,
    created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
RETURNING request_id;

-- name: find_status_change
-- What was asked for under a request's id.
SELECT merchant_id, status, reason FROM merchant_status_changes
WHERE tenant_id = $1 AND request_id = $2;

-- name: add_key
-- Register a key; no row when its request is known.
INSERT INTO merchant_keys (id, tenant_id, merchant_id, mode, public_key, request_id, actor,
    version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_key_by_request
-- The key that a request registered.
SELECT id, tenant_id, merchant_id, mode, public_key, request_id, actor, revoked_at, version,
    created_at, updated_at
FROM merchant_keys
WHERE tenant_id = $1 AND request_id = $2;

-- name: find_key
-- One key.
SELECT id, tenant_id, merchant_id, mode, public_key, request_id, actor, revoked_at, version,
    created_at, updated_at
FROM merchant_keys
WHERE id = $1 AND tenant_id = $2;

-- name: revoke_key
-- Take a key back; no row when that was done before.
UPDATE merchant_keys SET revoked_at = $3, version = version + 1, updated_at = $3
WHERE id = $1 AND tenant_id = $2 AND revoked_at IS NULL
RETURNING id, tenant_id, merchant_id, mode, public_key, request_id, actor, revoked_at, version,
    created_at, updated_at;

-- name: add_users
-- Register users; no row for those whose request or number is known.
INSERT INTO users (id, tenant_id, mode, merchant_id, merchant_user_no, status, currency_codes,
    request_id, actor, biz_trace_id, version, created_at, updated_at)
SELECT id, tenant_id, mode, merchant_id, merchant_user_no, 'OPENING',
    string_to_array(currency_codes, ','), request_id, actor, biz_trace_id, 1, at, at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::timestamptz[])
    AS new (id, tenant_id, mode, merchant_id, merchant_user_no, currency_codes, request_id, actor,
    biz_trace_id, at)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_users_again
-- The users that registrations collided with, with the place of each; of the same request first.
SELECT DISTINCT ON (asked.place) asked.place, known.id, known.tenant_id, known.mode,
    known.merchant_id, known.merchant_user_no, known.status, known.currency_codes,
    known.request_id, known.actor, known.biz_trace_id, known.version, known.created_at,
    known.updated_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    WITH ORDINALITY AS asked (tenant_id, mode, merchant_id, request_id, merchant_user_no, place)
JOIN users AS known ON known.merchant_id = asked.merchant_id AND known.mode = asked.mode
    AND known.tenant_id = asked.tenant_id
    AND (known.request_id = asked.request_id OR known.merchant_user_no = asked.merchant_user_no)
ORDER BY asked.place, known.request_id = asked.request_id DESC;

-- name: find_user
-- One user.
SELECT id, tenant_id, mode, merchant_id, merchant_user_no, status, currency_codes, request_id,
    actor, biz_trace_id, version, created_at, updated_at
FROM users
WHERE id = $1 AND tenant_id = $2 AND mode = $3;

-- name: activate_users
-- Let users whose accounts are open do business; those that may already are left alone.
UPDATE users SET status = 'ACTIVE', version = version + 1, updated_at = $2
WHERE id = ANY($1::text[]) AND status = 'OPENING'
RETURNING id, version, actor, biz_trace_id;

-- name: find_users
-- Users by id.
SELECT id, tenant_id, mode, merchant_id, merchant_user_no, status, currency_codes, request_id,
    actor, biz_trace_id, version, created_at, updated_at
FROM users
WHERE id = ANY($1::text[]);

-- name: list_opening_users
-- Users that have been OPENING for too long.
SELECT id, tenant_id, mode, merchant_id, merchant_user_no, status, currency_codes, request_id,
    actor, biz_trace_id, version, created_at, updated_at
FROM users
WHERE status = 'OPENING' AND created_at < $1
ORDER BY created_at
LIMIT 500;

-- name: list_opening_merchants
-- Merchants that have been OPENING for too long.
SELECT id, tenant_id, mode, merchant_no, name, status, currency_codes, request_id, actor,
    biz_trace_id, version, created_at, updated_at
FROM merchants
WHERE status = 'OPENING' AND created_at < $1
ORDER BY created_at
LIMIT 100;

-- name: add_cards
-- Bind cards; no row for those whose request or number is known.
INSERT INTO cards (id, tenant_id, mode, merchant_id, user_id, last_four, bank_code, key_id, sealed,
    number_hash, elements_hash, request_id, actor, biz_trace_id, version, created_at, updated_at)
SELECT id, tenant_id, mode, merchant_id, user_id, last_four, bank_code, key_id, sealed,
    number_hash, elements_hash, request_id, actor, biz_trace_id, 1, at, at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::bytea[], $10::bytea[], $11::bytea[], $12::text[], $13::text[], $14::text[],
    $15::timestamptz[])
    AS new (id, tenant_id, mode, merchant_id, user_id, last_four, bank_code, key_id, sealed,
    number_hash, elements_hash, request_id, actor, biz_trace_id, at)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_cards_by_request
-- The cards that requests have bound, with the place of each.
SELECT asked.place, known.id, known.tenant_id, known.mode, known.merchant_id, known.user_id,
    known.last_four, known.bank_code, known.key_id, known.sealed, known.number_hash,
    known.elements_hash, known.request_id, known.actor, known.biz_trace_id, known.unbound_at,
    known.version, known.created_at, known.updated_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS asked (tenant_id, mode, merchant_id, request_id, place)
JOIN cards AS known ON known.merchant_id = asked.merchant_id AND known.mode = asked.mode
    AND known.tenant_id = asked.tenant_id AND known.request_id = asked.request_id;

-- name: find_cards_by_number
-- The cards bound to users under a number, with the place of each.
SELECT asked.place, known.id, known.tenant_id, known.mode, known.merchant_id, known.user_id,
    known.last_four, known.bank_code, known.key_id, known.sealed, known.number_hash,
    known.elements_hash, known.request_id, known.actor, known.biz_trace_id, known.unbound_at,
    known.version, known.created_at, known.updated_at
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS asked (user_id, number_hash, place)
JOIN cards AS known ON known.user_id = asked.user_id AND known.number_hash = asked.number_hash
    AND known.unbound_at IS NULL;

-- name: find_card
-- One card.
SELECT id, tenant_id, mode, merchant_id, user_id, last_four, bank_code, key_id, sealed,
    number_hash, elements_hash, request_id, actor, biz_trace_id, unbound_at, version, created_at,
    updated_at
FROM cards
WHERE id = $1 AND tenant_id = $2 AND mode = $3;

-- name: list_cards_of_other_keys
-- Cards whose elements are sealed under another master key than this.
SELECT id, sealed FROM cards WHERE key_id <> $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: reseal_cards
-- Put cards under another master key, unless they were changed meanwhile.
UPDATE cards SET sealed = new.sealed, key_id = $4
FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (id, before, sealed)
WHERE cards.id = new.id AND cards.sealed = new.before;

-- name: find_subjects
-- The nouns that a number stands for: an id of ours, or an operator's or merchant's number.
SELECT id FROM merchants WHERE tenant_id = $2 AND (id = $1 OR merchant_no = $1)
UNION SELECT id FROM users WHERE tenant_id = $2 AND (id = $1 OR merchant_user_no = $1)
UNION SELECT id FROM merchant_keys WHERE tenant_id = $2 AND id = $1
UNION SELECT id FROM cards WHERE tenant_id = $2 AND id = $1
LIMIT 20;

-- name: list_history_of
-- What became of nouns, oldest first.
SELECT noun, id, version, from_state, to_state, actor, reason, cause, biz_trace_id, at
FROM history
WHERE id = ANY($1::text[])
ORDER BY at, noun, id, version
LIMIT 1000;

-- name: list_unfinished
-- Whatever has not ended, by key.
SELECT key, noun, state FROM (
    SELECT id AS key, 'merchant' AS noun, status AS state FROM merchants WHERE status = 'OPENING'
    UNION ALL SELECT id, 'user', status FROM users WHERE status = 'OPENING'
    UNION ALL SELECT job_id, 'job', state FROM jobs WHERE state IN ('OPEN', 'PARKED')
    UNION ALL SELECT event_id, 'outbox', 'WAITING' FROM outbox WHERE published_at IS NULL
    UNION ALL SELECT event_id, 'event', 'PARKED' FROM inbox_parked
) AS unfinished
WHERE key COLLATE "C" > $1
ORDER BY key COLLATE "C"
LIMIT $2;
