-- The trainer's state. Offsets are the pipeline's log's; times with _us are microseconds since 1970 UTC.

CREATE TABLE pipelines (
    pipeline text NOT NULL,
    version int NOT NULL,
    definition text NOT NULL,
    sha256 text NOT NULL,
    partitions int NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (pipeline, version)
);

-- one row a pipeline: its lock for decisions, and the counter of its model versions
CREATE TABLE desks (
    pipeline text PRIMARY KEY,
    last_model_version int NOT NULL DEFAULT 0
);

-- what has been consumed of each log partition: the cut, were it fixed now
CREATE TABLE log_progress (
    pipeline text NOT NULL,
    partition int NOT NULL,
    next_offset bigint NOT NULL,
    last_observation bigint NOT NULL,
    observations bigint NOT NULL,
    labels bigint NOT NULL,
    known_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, partition)
);

CREATE TABLE vector_progress (
    pipeline text NOT NULL,
    version int NOT NULL,
    partition int NOT NULL,
    last_offset bigint NOT NULL,
    vectors bigint NOT NULL,
    PRIMARY KEY (pipeline, version, partition)
);

-- rows that no segment holds yet; version is 0 for records of the log
CREATE TABLE staged (
    pipeline text NOT NULL,
    kind text NOT NULL,
    version int NOT NULL,
    partition int NOT NULL,
    log_offset bigint NOT NULL,
    label boolean NOT NULL,
    id text NOT NULL,
    event_time_us bigint NOT NULL,
    known_at_us bigint NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (pipeline, kind, version, partition, log_offset)
);

CREATE TABLE segments (
    pipeline text NOT NULL,
    kind text NOT NULL,
    version int NOT NULL,
    partition int NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    rows int NOT NULL,
    file text NOT NULL UNIQUE,
    sha256 text NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (pipeline, kind, version, partition, first_offset)
);

-- what may start a run and has not been answered
CREATE TABLE arrivals (
    event_id text PRIMARY KEY,
    arrived bigint GENERATED ALWAYS AS IDENTITY,
    pipeline text NOT NULL,
    partition int NOT NULL,
    labels bigint NOT NULL
);

CREATE TABLE signals (
    event_id text PRIMARY KEY,
    arrived bigint GENERATED ALWAYS AS IDENTITY,
    pipeline text NOT NULL,
    kind text NOT NULL,
    body text NOT NULL
);

CREATE TABLE champions (
    pipeline text PRIMARY KEY,
    revision int NOT NULL,
    model_version int,
    pipeline_version int,
    artifact_sha256 text
);

CREATE TABLE runs (
    run_id text PRIMARY KEY,
    pipeline text NOT NULL,
    pipeline_version int NOT NULL,
    trigger text NOT NULL,
    overrides text NOT NULL,
    cut text NOT NULL,
    labels_at_cut bigint NOT NULL,
    pipeline_time timestamptz NOT NULL,
    traceparent text,
    state text NOT NULL CHECK (state IN ('waiting', 'training', 'trained', 'failed')),
    lease_owner text,
    lease_until timestamptz,
    attempts int NOT NULL DEFAULT 0,
    crashes int NOT NULL DEFAULT 0,
    job text,
    outcome text,
    decided bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

CREATE UNIQUE INDEX runs_one_active ON runs (pipeline) WHERE state IN ('waiting', 'training');
CREATE INDEX runs_by_pipeline ON runs (pipeline, decided);

-- the last observation below a run's cut: a run waits until that partition's vectors have come so far
CREATE TABLE run_needs (
    run_id text NOT NULL REFERENCES runs,
    partition int NOT NULL,
    last_observation bigint NOT NULL,
    PRIMARY KEY (run_id, partition)
);

CREATE TABLE models (
    pipeline text NOT NULL,
    model_version int NOT NULL,
    run_id text NOT NULL UNIQUE REFERENCES runs,
    pipeline_version int NOT NULL,
    artifact_sha256 text NOT NULL,
    dataset_sha256 text NOT NULL,
    last_event_time timestamptz NOT NULL,
    verdict text,
    PRIMARY KEY (pipeline, model_version)
);
