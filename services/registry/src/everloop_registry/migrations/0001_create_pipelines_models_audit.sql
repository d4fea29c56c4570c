-- JSON is kept as the very text that was hashed or published: jsonb would write numbers anew.

CREATE TABLE pipelines (
    pipeline   text NOT NULL,
    version    integer NOT NULL CHECK (version >= 1),
    definition json NOT NULL,
    sha256     text NOT NULL,
    partitions integer NOT NULL,
    defined_at timestamptz NOT NULL,
    defined_by text NOT NULL,
    PRIMARY KEY (pipeline, version)
);

CREATE TABLE models (
    pipeline      text NOT NULL,
    model_version integer NOT NULL CHECK (model_version >= 1),
    trained       json NOT NULL,
    gates         json NOT NULL,
    state         text NOT NULL CHECK (state IN ('awaiting-approval', 'approved', 'rejected')),
    decided_by    text NOT NULL,
    decided_at    timestamptz NOT NULL,
    reason        text NOT NULL,
    PRIMARY KEY (pipeline, model_version)
);

CREATE TABLE deployments (
    pipeline         text PRIMARY KEY,
    revision         integer NOT NULL CHECK (revision >= 1),
    champion         json,
    challenger       json,
    challenger_share double precision NOT NULL,
    former           json NOT NULL,
    pinned           json NOT NULL
);

CREATE TABLE audit (
    pipeline        text NOT NULL,
    sequence        integer NOT NULL CHECK (sequence >= 1),
    at              timestamptz NOT NULL,
    actor           text NOT NULL,
    action          text NOT NULL,
    model_version   integer,
    details         json NOT NULL,
    previous_sha256 text NOT NULL,
    sha256          text NOT NULL,
    PRIMARY KEY (pipeline, sequence)
);

CREATE TABLE loads (
    id            text PRIMARY KEY,
    pipeline      text NOT NULL,
    model_version integer NOT NULL,
    instance      text NOT NULL,
    loaded_at     timestamptz NOT NULL,
    event         json NOT NULL
);

CREATE INDEX loads_newest ON loads (pipeline, loaded_at DESC);
