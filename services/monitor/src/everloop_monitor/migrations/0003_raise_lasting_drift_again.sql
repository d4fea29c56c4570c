-- The day of the newest alarm by model and kind: drift that lasts is raised again when days enough have passed since.
ALTER TABLE verdicts ADD COLUMN alarmed date;
UPDATE verdicts SET alarmed = day WHERE detected;
