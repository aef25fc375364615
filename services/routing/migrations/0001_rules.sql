-- Versions of the routing rules.

CREATE TABLE rule_versions (
    version bigint PRIMARY KEY CHECK (version > 0),
    tenant_id text NOT NULL,
    mode text NOT NULL,
    actor text NOT NULL,
    request_id text NOT NULL,
    rules jsonb NOT NULL,
    reason text NOT NULL,
    biz_trace_id text NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (tenant_id, mode, request_id)
);
COMMENT ON TABLE rule_versions IS 'All versions of the rules; the highest is in force';
CREATE TRIGGER rule_versions_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rule_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
