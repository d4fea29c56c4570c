-- what the data of each training was like: the newest of them stand in the catalog
CREATE TABLE profiles (
    run_id      text PRIMARY KEY,
    pipeline    text NOT NULL,
    profiled_at timestamptz NOT NULL,
    profile     json NOT NULL
);

CREATE INDEX profiles_newest ON profiles (pipeline, profiled_at DESC);
