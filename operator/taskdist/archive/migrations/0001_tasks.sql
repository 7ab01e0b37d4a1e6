-- Ended Tasks and their attempts, in a partition for each month in which Tasks ended (UTC).
CREATE TABLE tasks (
    uid         text        NOT NULL,
    version     bigint      NOT NULL,          -- resourceVersion of the state that is kept
    cluster     text        NOT NULL,
    namespace   text        NOT NULL,
    name        text        NOT NULL,
    queue       text        NOT NULL,
    tenant      text        NOT NULL,
    type        text        NOT NULL,
    pool        text        NOT NULL,
    agent       text        NOT NULL,
    phase       text        NOT NULL,
    reason      text        NOT NULL,
    message     text        NOT NULL,
    priority    text        NOT NULL,
    attempts    integer     NOT NULL,          -- how many leases were granted
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,                   -- of the last attempt
    ended_at    timestamptz NOT NULL,
    queue_ms    bigint,                        -- from creation to the start of the last attempt
    run_ms      bigint,                        -- from there to the end
    labels      jsonb       NOT NULL,
    spec        jsonb,
    status      jsonb,                         -- without result and attempts
    result      jsonb,
    usage       jsonb,                         -- room for what handlers used
    verdict     jsonb,                         -- room for what reviewers said
    left_out    text        NOT NULL,          -- what the database would not take, and why; empty: nothing
    archived_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (uid, ended_at)
) PARTITION BY RANGE (ended_at);

CREATE INDEX tasks_ended ON tasks (ended_at DESC);
CREATE INDEX tasks_name ON tasks (namespace, name);
CREATE INDEX tasks_queue ON tasks (namespace, queue, ended_at DESC);
CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops);

CREATE TABLE attempts (
    uid           text        NOT NULL,
    attempt       integer     NOT NULL,
    task_ended_at timestamptz NOT NULL,        -- the Task's, so that both go in one month
    reason        text        NOT NULL,
    message       text        NOT NULL,
    agent         text        NOT NULL,
    started_at    timestamptz,
    ended_at      timestamptz,
    PRIMARY KEY (uid, attempt, task_ended_at)
) PARTITION BY RANGE (task_ended_at);
