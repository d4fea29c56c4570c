-- The offsets that count: Kafka's own are only a hint. `next` is the first offset whose effect is not in this schema.
CREATE TABLE consumer_offsets (
    consumer_group text   NOT NULL,
    topic          text   NOT NULL,
    partition      int    NOT NULL,
    next           bigint NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
);

-- Events that are decided and not yet known to be published. Ids follow the order of commits (see outbox.py).
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text  NOT NULL,
    partition  int,
    key        bytea,
    value      bytea,
    headers    bytea NOT NULL, -- JSON [[name, base64 or null], ...]: a text column takes no NUL
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Which outbox this is: published ids of another database's outbox mean nothing here.
CREATE TABLE outbox_identity (id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO outbox_identity DEFAULT VALUES;
