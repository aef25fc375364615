-- A callback is known by the digest of its body, as the rows of `channel` keep it: so its request
-- is found from there, also when the callback changed nothing.

COMMENT ON COLUMN requests.idempotency_key_hash IS
    'SHA-256 of the Idempotency-Key or, of a callback, of its body: what a repeat is known by';
