-- Work that is due later, or again.

CREATE TABLE jobs (
    job_id text PRIMARY KEY,
    kind text NOT NULL,
    key text NOT NULL,
    state text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'DONE', 'PARKED', 'CANCELLED')),
    run_at timestamptz NOT NULL,
    attempts int NOT NULL DEFAULT 0,
    is_running boolean NOT NULL DEFAULT false,
    lease bigint NOT NULL DEFAULT 0,
    payload jsonb NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    merchant_id text NOT NULL,
    actor text NOT NULL,
    on_behalf_of text NOT NULL,
    biz_trace_id text NOT NULL,
    causation_id text NOT NULL,
    traceparent text NOT NULL,
    last_error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    ended_at timestamptz
) WITH (fillfactor = 70);
COMMENT ON TABLE jobs IS 'Work that is due later, or again';
COMMENT ON COLUMN jobs.run_at IS
    'When the work is due; while it runs, when it is taken from a worker that said nothing';
COMMENT ON COLUMN jobs.lease IS
    'Raised by each claim and each change from outside: who finishes names the one it was given';
CREATE UNIQUE INDEX jobs_open ON jobs (kind, key) WHERE state = 'OPEN';
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'OPEN';
CREATE INDEX jobs_parked ON jobs (created_at) WHERE state = 'PARKED';
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE state IN ('DONE', 'CANCELLED');
CREATE INDEX jobs_story ON jobs (biz_trace_id) WHERE biz_trace_id <> '';
