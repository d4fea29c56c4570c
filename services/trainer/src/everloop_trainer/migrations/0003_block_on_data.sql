-- whether broken data gates keep a pipeline from training by itself: reason is null while none is broken
CREATE TABLE data_blocks (
    pipeline text PRIMARY KEY,
    revision int NOT NULL,
    reason text
);
