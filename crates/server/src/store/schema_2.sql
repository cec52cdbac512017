-- What each account's results that lie ready take, so that nobody has to add them up at every submission.
CREATE TABLE stored (
    account TEXT PRIMARY KEY,
    bytes BIGINT NOT NULL
);
INSERT INTO stored (account, bytes)
    SELECT account, CAST(SUM(result_bytes) AS BIGINT) FROM jobs WHERE result_key IS NOT NULL GROUP BY account;
-- By it jobs are found that are to be forgotten.
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;
