-- how many labelled rows a run had that the champion of its time had not trained on; null: there was no champion
ALTER TABLE models ADD COLUMN unseen_champion int;
ALTER TABLE models ADD COLUMN unseen_rows int;
