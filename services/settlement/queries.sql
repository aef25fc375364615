-- Fee plans and clearing entries (services/settlement/migrations).

-- name: find_fee_plan
-- A merchant's own plan.
SELECT rate_ppm, returned_on_refund, version
FROM fee_plans
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3;

-- name: lock_fee_plan
-- A merchant's own plan, held until the end of the transaction.
SELECT rate_ppm, returned_on_refund, version
FROM fee_plans
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3
FOR UPDATE;

-- name: find_change
-- What a request has changed.
SELECT rate_ppm, returned_on_refund, version
FROM fee_plan_changes
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3 AND request_id = $4;

-- name: put_fee_plan
-- A merchant's plan, new or after the version that was seen.
INSERT INTO fee_plans AS kept (tenant_id, mode, merchant_id, actor, rate_ppm, returned_on_refund,
    version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (tenant_id, mode, merchant_id) DO UPDATE SET
    actor = excluded.actor, rate_ppm = excluded.rate_ppm,
    returned_on_refund = excluded.returned_on_refund, version = excluded.version,
    updated_at = excluded.updated_at
WHERE kept.version = excluded.version - 1
RETURNING version;

-- name: add_change
-- Note the plan that a request made.
INSERT INTO fee_plan_changes (tenant_id, mode, merchant_id, request_id, actor, rate_ppm,
    returned_on_refund, version, biz_trace_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: insert_entries
-- New clearing entries; those whose payment or refund has one are left out and not returned.
INSERT INTO clearing_entries (id, kind, subject_id, payment_id, order_id, tenant_id, mode,
    merchant_id, currency_code, gross_minor, fee_minor, net_minor, business_date, biz_trace_id,
    created_at)
SELECT id, kind, subject_id, payment_id, order_id, tenant_id, mode, merchant_id, currency_code,
    gross_minor, fee_minor, net_minor, business_date, biz_trace_id, created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::date[], $14::text[],
    $15::timestamptz[])
    AS new (id, kind, subject_id, payment_id, order_id, tenant_id, mode, merchant_id,
        currency_code, gross_minor, fee_minor, net_minor, business_date, biz_trace_id, created_at)
ORDER BY id
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_entries
-- Entries by id.
SELECT id, kind, subject_id, payment_id, order_id, tenant_id, mode, merchant_id, currency_code,
    gross_minor, fee_minor, net_minor, business_date, biz_trace_id, created_at
FROM clearing_entries
WHERE id = ANY ($1::text[]);

-- name: exempt_payments
-- Payments that make no entry.
INSERT INTO exempt_payments (payment_id, order_type, created_at)
SELECT payment_id, order_type, $3
FROM unnest($1::text[], $2::text[]) AS new (payment_id, order_type)
ORDER BY payment_id
ON CONFLICT DO NOTHING;

-- name: find_payments
-- Which payments were heard of, and whether they make entries.
SELECT payment_id, biz_trace_id, false AS is_exempt
FROM clearing_entries
WHERE kind = 'PAYMENT' AND subject_id = ANY ($1::text[])
UNION ALL
SELECT payment_id, '', true FROM exempt_payments WHERE payment_id = ANY ($1::text[]);

-- name: list_totals
-- A merchant's entries summed by business date and currency.
SELECT business_date, currency_code,
    count(*) FILTER (WHERE kind = 'PAYMENT') AS payments,
    count(*) FILTER (WHERE kind = 'REFUND') AS refunds,
    coalesce(sum(gross_minor) FILTER (WHERE kind = 'PAYMENT'), 0)::bigint AS paid_minor,
    coalesce(-sum(gross_minor) FILTER (WHERE kind = 'REFUND'), 0)::bigint AS refunded_minor,
    sum(fee_minor)::bigint AS fees_minor,
    sum(net_minor)::bigint AS net_minor
FROM clearing_entries
WHERE merchant_id = $1 AND tenant_id = $2 AND mode = $3 AND business_date BETWEEN $4 AND $5
GROUP BY business_date, currency_code
ORDER BY business_date, currency_code;

-- name: list_entry_facts
-- Entries in the order of their payment or refund, for audits.
SELECT subject_id AS key, jsonb_build_object('id', id, 'kind', kind, 'payment_id', payment_id,
    'order_id', order_id, 'merchant_id', merchant_id, 'currency_code', currency_code,
    'gross_minor', gross_minor::text, 'fee_minor', fee_minor::text, 'net_minor', net_minor::text,
    'business_date', business_date::text, 'biz_trace_id', biz_trace_id) AS facts
FROM clearing_entries
WHERE tenant_id = $1 AND mode = $2 AND subject_id > $3
ORDER BY subject_id
LIMIT $4;

-- name: list_unfinished
-- Everything that has not ended, in the order of the keys.
SELECT key, facts FROM (
    SELECT job_id AS key, jsonb_build_object('noun', 'job', 'state', state, 'kind', kind) AS facts
    FROM jobs WHERE state IN ('OPEN', 'PARKED') AND tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'event', 'state', 'WAITING', 'type', type)
    FROM outbox WHERE published_at IS NULL AND tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'inbox', 'state', 'PARKED', 'consumer', consumer,
        'reason', last_error)
    FROM inbox_parked
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'inbox', 'state', 'DEAD', 'consumer', consumer,
        'reason', last_error)
    FROM inbox_dead
) AS unfinished
WHERE key COLLATE "C" > $3
ORDER BY key COLLATE "C"
LIMIT $4;
