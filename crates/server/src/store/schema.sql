-- Accounts, keys, jobs and usage. Every statement after these reads and writes types that SQLite and PostgreSQL share.

CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    -- What it may use, as JSON: see `Limits`.
    limits TEXT NOT NULL,
    -- Its share of the service, relative to others'.
    weight DOUBLE PRECISION NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (name),
    -- SHA-256 of the secret part.
    digest BLOB NOT NULL,
    -- Separated by spaces.
    scopes TEXT NOT NULL,
    label TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    model TEXT NOT NULL,
    label TEXT,
    priority BIGINT NOT NULL,
    -- queued, running, succeeded, failed, cancelled
    state TEXT NOT NULL,
    -- Runs alone, because the process died while it ran.
    suspect BIGINT NOT NULL DEFAULT 0,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    submitted_ms BIGINT NOT NULL,
    started_ms BIGINT,
    finished_ms BIGINT,
    deadline_ms BIGINT,
    idempotency_key TEXT,
    -- SHA-256 of the program and how it is to be run.
    fingerprint BLOB NOT NULL,
    -- The price.
    flops BIGINT NOT NULL,
    peak_bytes BIGINT NOT NULL,
    price_result_bytes BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    estimated_ms DOUBLE PRECISION NOT NULL,
    -- The program as it came, where it is small; larger ones are files.
    program BLOB,
    result_key TEXT,
    result_bytes BIGINT,
    result_etag TEXT,
    expires_ms BIGINT,
    -- What the last attempt did, as JSON: see `Outcome`.
    outcome TEXT,
    -- Why it failed, as JSON.
    problem TEXT,
    UNIQUE (account, idempotency_key)
);
CREATE INDEX jobs_by_account ON jobs (account, submitted_ms, id);
CREATE INDEX jobs_unfinished ON jobs (state) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_expiring ON jobs (expires_ms) WHERE expires_ms IS NOT NULL;

-- What is recorded before a job runs, so that it is known what ran when the process died.
CREATE TABLE attempts (
    job TEXT NOT NULL,
    number BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    -- done, failed, cancelled, put_back, suspected, died
    outcome TEXT,
    PRIMARY KEY (job, number)
);
CREATE INDEX attempts_open ON attempts (job) WHERE ended_ms IS NULL;

CREATE TABLE usage (
    account TEXT NOT NULL,
    -- In UTC: 2026-01-31.
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    jobs BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    flops BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    result_bytes BIGINT NOT NULL,
    milliseconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (account, day, model)
);

-- Who did what that matters later. No prompts, no values.
CREATE TABLE audit (
    at_ms BIGINT NOT NULL,
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at_ms);
