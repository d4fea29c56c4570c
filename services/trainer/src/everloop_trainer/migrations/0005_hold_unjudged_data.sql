-- how many records (observations and labels) of a log partition ingest has judged and announced
CREATE TABLE announced (
    pipeline text NOT NULL,
    partition int NOT NULL,
    records bigint NOT NULL,
    PRIMARY KEY (pipeline, partition)
);

-- a partition that gets no more records would announce none either
INSERT INTO announced SELECT pipeline, partition, observations + labels FROM log_progress;
