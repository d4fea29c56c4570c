-- the span that recorded a partition's newest vectors: a run's span links there, and so to their computation
ALTER TABLE vector_progress ADD COLUMN traceparent text;
