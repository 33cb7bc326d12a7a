-- The public views: their names and columns may grow and never break. They are made anew by every migration, so the
-- tables behind them may change freely. Times are text, YYYY-MM-DDTHH:MM:SS.mmmZ.

CREATE VIEW v_status AS
SELECT h.app, r.version, h.revision, r.type, h.status, h.level, h.msg, h.updated,
       json_extract(h.hold, '$.by') AS held_by, json_extract(h.hold, '$.reason') AS held_because
FROM heads AS h JOIN revisions AS r ON r.app = h.app AND r.revision = h.revision
WHERE h.gone = 0
ORDER BY h.app;

CREATE VIEW v_revisions AS
SELECT app, revision, version, type, kind, spec, submitted_at, submitted_by
FROM revisions;

CREATE VIEW v_health AS
SELECT app, version, revision, at, status, level, msg, id
FROM health;

CREATE VIEW v_exits AS
SELECT app, revision, replica, started_at, exited_at, exit_code, signal, oom_killed, reason, seconds, id
FROM exits;

CREATE VIEW v_events AS
SELECT id, at, app, revision, kind, message
FROM events;
