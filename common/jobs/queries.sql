-- The delayed-job table of a schema (common/migrations/0003_jobs.sql).

-- name: add_jobs
-- Write new jobs; one that is open under the same kind and key stays as it is.
INSERT INTO jobs (job_id, kind, key, run_at, payload, tenant_id, mode, merchant_id, actor,
    on_behalf_of, biz_trace_id, causation_id, traceparent, created_at)
SELECT job_id, kind, key, run_at, payload, tenant_id, mode, merchant_id, actor, on_behalf_of,
    biz_trace_id, causation_id, traceparent, coalesce($14, clock_timestamp())
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[], $6::text[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
    AS new (job_id, kind, key, run_at, payload, tenant_id, mode, merchant_id, actor, on_behalf_of,
        biz_trace_id, causation_id, traceparent)
ON CONFLICT DO NOTHING
RETURNING job_id;

-- name: cancel_jobs
-- End open jobs that are of no use any more. One that runs, or that was hastened by news that no
-- run has seen, is left to end by itself: what it knows may be more than its canceller does.
UPDATE jobs SET state = 'CANCELLED', lease = lease + 1, ended_at = clock_timestamp()
WHERE kind = $1 AND key = ANY ($2::text[]) AND state = 'OPEN' AND NOT is_running
    AND NOT is_hastened
RETURNING key;

-- name: hasten_jobs
-- Let open jobs be due no later than an instant; one that runs now runs once more after it.
UPDATE jobs SET is_hastened = true,
    run_at = CASE WHEN is_running THEN run_at
        ELSE least(run_at, coalesce($3, clock_timestamp())) END
WHERE kind = $1 AND key = ANY ($2::text[]) AND state = 'OPEN' AND NOT is_hastened
RETURNING key;

-- name: claim_jobs
-- Take due jobs under a lease; those that another worker takes at this moment are passed over.
WITH kinds AS (
    SELECT kind, lease_seconds FROM unnest($2::text[], $3::float8[]) AS k (kind, lease_seconds)
),
due AS (
    SELECT jobs.job_id, jobs.run_at, kinds.lease_seconds
    FROM jobs JOIN kinds ON kinds.kind = jobs.kind
    WHERE jobs.state = 'OPEN' AND jobs.run_at <= coalesce($1, clock_timestamp())
    ORDER BY jobs.run_at
    LIMIT $4
    FOR UPDATE OF jobs SKIP LOCKED
)
UPDATE jobs SET attempts = jobs.attempts + 1, lease = jobs.lease + 1, is_running = true,
    is_hastened = false,
    run_at = coalesce($1, clock_timestamp()) + make_interval(secs => due.lease_seconds)
FROM due
WHERE jobs.job_id = due.job_id
RETURNING jobs.job_id, jobs.kind, jobs.key, due.run_at, jobs.attempts, jobs.lease, jobs.payload,
    jobs.tenant_id, jobs.mode, jobs.merchant_id, jobs.actor, jobs.on_behalf_of, jobs.biz_trace_id,
    jobs.causation_id, jobs.traceparent, jobs.last_error, jobs.created_at;

-- name: finish_jobs
-- Note how runs ended, for those whose lease still holds; one that was hastened meanwhile is due.
UPDATE jobs SET
    state = CASE WHEN jobs.is_hastened THEN 'OPEN' ELSE ended.state END,
    attempts = CASE WHEN ended.is_fresh OR jobs.is_hastened THEN 0 ELSE jobs.attempts END,
    is_running = false,
    run_at = CASE WHEN jobs.is_hastened THEN coalesce($1, clock_timestamp())
        WHEN ended.state = 'OPEN'
        THEN coalesce($1, clock_timestamp()) + make_interval(secs => ended.after_seconds)
        ELSE jobs.run_at END,
    last_error = ended.last_error,
    ended_at = CASE WHEN ended.state = 'OPEN' OR jobs.is_hastened THEN NULL
        ELSE coalesce($1, clock_timestamp()) END
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::boolean[], $6::float8[], $7::text[])
    AS ended (job_id, lease, state, is_fresh, after_seconds, last_error)
WHERE jobs.job_id = ended.job_id AND jobs.lease = ended.lease AND jobs.state = 'OPEN'
RETURNING jobs.job_id, jobs.is_hastened;

-- name: renew_jobs
-- Keep the jobs that this worker still runs; a lease that was lost stays lost.
UPDATE jobs SET run_at = clock_timestamp() + make_interval(secs => mine.seconds)
FROM unnest($1::text[], $2::bigint[], $3::float8[]) AS mine (job_id, lease, seconds)
WHERE jobs.job_id = mine.job_id AND jobs.lease = mine.lease AND jobs.state = 'OPEN'
    AND jobs.is_running
RETURNING jobs.job_id;

-- name: find_next_run
-- When the next job is due, so that a worker sleeps no longer.
SELECT extract(epoch FROM min(run_at) - clock_timestamp())::float8
FROM jobs
WHERE state = 'OPEN' AND kind = ANY ($1::text[]);

-- name: list_parked
-- Jobs that were given up and wait for a person, oldest first.
SELECT job_id, kind, key, attempts, payload, merchant_id, biz_trace_id, last_error, created_at,
    ended_at
FROM jobs
WHERE state = 'PARKED'
ORDER BY created_at
LIMIT $1;

-- name: resume_jobs
-- Let parked jobs run again, unless another is open under the same kind and key.
UPDATE jobs SET state = 'OPEN', attempts = 0, lease = lease + 1, is_running = false,
    run_at = coalesce($2, clock_timestamp()), ended_at = NULL
WHERE job_id = ANY ($1::text[]) AND state = 'PARKED'
    AND NOT EXISTS (
        SELECT FROM jobs AS other
        WHERE other.kind = jobs.kind AND other.key = jobs.key AND other.state = 'OPEN'
    )
RETURNING job_id;

-- name: count_jobs
-- How many jobs of each kind are in which state.
SELECT kind, state, count(*) AS count FROM jobs WHERE state <> 'DONE' GROUP BY kind, state;

-- name: prune_jobs
-- Forget jobs that ended well long ago.
DELETE FROM jobs
WHERE job_id IN (
    SELECT job_id FROM jobs
    WHERE state IN ('DONE', 'CANCELLED')
        AND ended_at < coalesce($1, clock_timestamp()) - make_interval(days => $2)
    ORDER BY ended_at
    LIMIT $3
)
RETURNING job_id;
