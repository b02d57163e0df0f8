-- The ledger's tables (SQLite). Amounts are nano-dollars, times UTC nanoseconds, ids 16 bytes of UUIDv7.
-- Application id 0x4f55544c ("OUTL"); user_version is the schema's version.
CREATE TABLE IF NOT EXISTS epochs (
    id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, stopped_at INTEGER, boot_id TEXT NOT NULL, pid INTEGER NOT NULL,
    is_full INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS interned (
    kind TEXT NOT NULL, id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS interned_body ON interned (kind, body);
CREATE TABLE IF NOT EXISTS limits (
    seq INTEGER PRIMARY KEY, budget TEXT NOT NULL, name TEXT NOT NULL, limit_nanos INTEGER, hard INTEGER NOT NULL,
    at INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    id INTEGER PRIMARY KEY, budget TEXT NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL,
    window_start INTEGER NOT NULL, window_end INTEGER NOT NULL, limit_nanos INTEGER,
    spent INTEGER NOT NULL, held INTEGER NOT NULL, UNIQUE (budget, scope, window_start)
) STRICT;
CREATE TABLE IF NOT EXISTS buckets (
    account_id INTEGER NOT NULL, start INTEGER NOT NULL, spent INTEGER NOT NULL, PRIMARY KEY (account_id, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
    id BLOB PRIMARY KEY, request_id BLOB NOT NULL, attempt INTEGER NOT NULL, identity_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL, price_id INTEGER NOT NULL, accounts_id INTEGER NOT NULL, nanos INTEGER NOT NULL,
    placed_at INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS charges (
    id BLOB PRIMARY KEY, request_id BLOB NOT NULL, attempt INTEGER NOT NULL, identity_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL, price_id INTEGER NOT NULL, accounts_id INTEGER NOT NULL, status TEXT NOT NULL,
    basis TEXT NOT NULL, hold_nanos INTEGER NOT NULL, cost_nanos INTEGER NOT NULL, input_tokens INTEGER,
    cache_read_tokens INTEGER, cache_write_tokens INTEGER, cache_write_1h_tokens INTEGER,
    cache_write_12h_tokens INTEGER, output_tokens INTEGER, reasoning_tokens INTEGER, tool_requests INTEGER,
    placed_at INTEGER NOT NULL, first_byte_at INTEGER, settled_at INTEGER NOT NULL, hold_seq INTEGER NOT NULL,
    settle_seq INTEGER NOT NULL, http_status INTEGER, reason TEXT, adjustment_nanos INTEGER NOT NULL DEFAULT 0,
    other_usage TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS charges_unknown ON charges (id) WHERE basis = 'outcome_unknown';
CREATE INDEX IF NOT EXISTS charges_retry ON charges (request_id) WHERE attempt > 1;
CREATE TABLE IF NOT EXISTS postings (
    seq INTEGER PRIMARY KEY, charge_id BLOB NOT NULL, kind TEXT NOT NULL, nanos INTEGER NOT NULL, at INTEGER NOT NULL,
    actor TEXT NOT NULL, note TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, at INTEGER NOT NULL,
    actor TEXT NOT NULL, PRIMARY KEY (kind, name, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    hold_id BLOB PRIMARY KEY, kind TEXT NOT NULL, provider TEXT NOT NULL, job_id TEXT NOT NULL, body TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    provider TEXT NOT NULL, resource TEXT NOT NULL, org TEXT NOT NULL, team TEXT NOT NULL, key TEXT NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (provider, resource)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    org TEXT NOT NULL, team TEXT NOT NULL, name TEXT NOT NULL, parent TEXT NOT NULL, cap_nanos INTEGER,
    max_calls INTEGER, deadline INTEGER, opened_at INTEGER NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (org, team, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account_limits (
    seq INTEGER PRIMARY KEY, account_id INTEGER NOT NULL, limit_nanos INTEGER, hard INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS extensions (
    seq INTEGER PRIMARY KEY, hold_id BLOB NOT NULL, nanos INTEGER NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS refusals (
    minute INTEGER NOT NULL, code TEXT NOT NULL, budget TEXT NOT NULL, org TEXT NOT NULL, team TEXT NOT NULL,
    key TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (minute, code, budget, org, team, key)
) STRICT, WITHOUT ROWID;
