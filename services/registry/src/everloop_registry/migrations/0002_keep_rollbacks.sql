-- whether a rollback brought the champion back: then only a model that was compared with it replaces it by itself
ALTER TABLE deployments ADD COLUMN rolled_back boolean NOT NULL DEFAULT false;
