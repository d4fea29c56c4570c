-- Every version of every pipeline, as defined.
CREATE TABLE pipelines (
    pipeline text NOT NULL,
    version integer NOT NULL,
    definition jsonb NOT NULL,
    PRIMARY KEY (pipeline, version)
);

-- What each model was trained on: its reference for drift ends there.
CREATE TABLE models (
    pipeline text NOT NULL,
    model_version integer NOT NULL,
    pipeline_version integer NOT NULL,
    last_event_time timestamptz NOT NULL,
    PRIMARY KEY (pipeline, model_version)
);

CREATE TABLE champions (
    pipeline text PRIMARY KEY,
    revision integer NOT NULL,
    model_version integer
);

-- A prediction and, once it is known, its outcome.
CREATE TABLE predictions (
    pipeline text NOT NULL,
    id text NOT NULL,
    model_version integer NOT NULL,
    arm text NOT NULL,
    pipeline_version integer NOT NULL,
    day date NOT NULL,
    event_time timestamptz NOT NULL,
    predicted_at timestamptz NOT NULL,
    output double precision NOT NULL,
    label double precision,
    trace_id text,
    PRIMARY KEY (pipeline, id, model_version, arm)
);
CREATE INDEX predictions_by_day ON predictions (pipeline, model_version, arm, day) INCLUDE (output, label);

CREATE TABLE labels (
    pipeline text NOT NULL,
    id text NOT NULL,
    day date NOT NULL,
    value double precision NOT NULL,
    known_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, id)
);
CREATE INDEX labels_by_day ON labels (pipeline, day) INCLUDE (value);

-- Sketches of parts of a day, appended by each batch and added up when the day is judged.
CREATE TABLE sketches (
    pipeline text NOT NULL,
    pipeline_version integer NOT NULL,
    day date NOT NULL,
    rows integer NOT NULL,
    sketch bytea NOT NULL
);
CREATE INDEX sketches_by_day ON sketches (pipeline, pipeline_version, day);

-- How far each partition of each pipeline's log and vectors has been read, in pipeline time.
CREATE TABLE progress (
    pipeline text NOT NULL,
    stream text NOT NULL,
    partition integer NOT NULL,
    known_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, stream, partition)
);

-- The newest verdict by model and kind; a detected one stays as it is until there is another champion.
CREATE TABLE verdicts (
    pipeline text NOT NULL,
    model_version integer NOT NULL,
    kind text NOT NULL,
    day date NOT NULL,
    value double precision NOT NULL,
    threshold double precision NOT NULL,
    detected boolean NOT NULL,
    evidence jsonb NOT NULL,
    PRIMARY KEY (pipeline, model_version, kind)
);
