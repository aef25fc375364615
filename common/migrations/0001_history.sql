-- Append-only rows: what happened to every noun, and what people did.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TABLE history (
    noun text NOT NULL,
    id text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    from_state text NOT NULL,
    to_state text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    cause text NOT NULL,
    biz_trace_id text NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, noun, version)
);
COMMENT ON TABLE history IS 'One row for each change of a noun''s state, written with the change';
CREATE INDEX history_story ON history (biz_trace_id, at) WHERE biz_trace_id <> '';
CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE audit (
    position bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    mode text NOT NULL,
    actor text NOT NULL,
    on_behalf_of text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    before_digest text NOT NULL,
    after_digest text NOT NULL,
    reason text NOT NULL,
    biz_trace_id text NOT NULL,
    previous_link bytea NOT NULL,
    link bytea NOT NULL
);
COMMENT ON TABLE audit IS 'What people did; each row holds the digest of the one before it';
CREATE INDEX audit_subject ON audit (subject, position);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE leases IS 'Who does what only one may do at a time, until when';
