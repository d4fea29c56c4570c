-- An outcome may be revised to none (null), and an observation be retracted: neither joins an answer.
ALTER TABLE labels ALTER COLUMN value DROP NOT NULL;
ALTER TABLE labels ADD COLUMN withdrawn boolean NOT NULL DEFAULT false;
