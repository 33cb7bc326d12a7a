-- The public views: their names and columns may grow and never break. They are made anew by every migration, so the
-- tables behind them may change freely. Times are text, YYYY-MM-DDTHH:MM:SS.mmmZ.

CREATE VIEW v_status AS
SELECT h.app, r.version, h.revision, r.type, h.status, h.level, h.msg, h.updated,
       json_extract(h.hold, '$.by') AS held_by, json_extract(h.hold, '$.reason') AS held_because,
       CASE WHEN json_extract(h.deployment, '$.stage') IN ('rolling-back', 'rolled-back', 'rollback-failed')
            THEN h.good ELSE h.revision END AS running_revision
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

-- Runs of scripts. One without an end goes on, unless another one came after it or the app is gone: then nobody can know.
CREATE VIEW v_runs AS
SELECT r.app, r.revision, r.scheduled_at, r.started_at, r.finished_at, r.exit_code,
       coalesce(r.outcome, CASE
           WHEN EXISTS (SELECT 1 FROM runs AS n WHERE n.app = r.app AND n.id > r.id AND coalesce(n.outcome, '') NOT IN ('skipped', 'missed')) THEN 'unknown'
           WHEN EXISTS (SELECT 1 FROM heads AS h WHERE h.app = r.app AND h.gone = 0) THEN 'running'
           ELSE 'unknown' END) AS outcome,
       r.output_tail, r.reason, r.id
FROM runs AS r;

CREATE VIEW v_events AS
SELECT id, at, app, revision, kind, message
FROM events;

CREATE VIEW v_images AS
SELECT image, names, pulled_at, idle AS idle_seconds, removed_at, id
FROM images;

-- The ended ones, and before them, without an end, those under way. One that had succeeded and is being rolled back is under way again.
CREATE VIEW v_deployments AS
SELECT d.app, d.revision, d.version, d.kind, d.started_at, d.finished_at, d.seconds, d.outcome, d.reason,
       json_extract(d.phases, '$[#-1].phase') AS phase, d.phases, d.image, d.digest, d.number AS id
FROM deployments AS d
WHERE NOT EXISTS (
    SELECT 1 FROM heads AS h
    WHERE h.app = d.app AND h.gone = 0 AND json_extract(h.deployment, '$.number') = d.number
      AND json_extract(h.deployment, '$.stage') = 'rolling-back'
)
UNION ALL
SELECT h.app, json_extract(h.deployment, '$.revision'), json_extract(h.deployment, '$.version'), json_extract(h.deployment, '$.kind'),
       json_extract(h.deployment, '$.phases[0].at'), NULL, NULL, NULL, json_extract(h.deployment, '$.reason'),
       json_extract(h.deployment, '$.stage'), json_extract(h.deployment, '$.phases'),
       nullif(json_extract(h.deployment, '$.image'), ''), nullif(json_extract(h.deployment, '$.digest'), ''),
       json_extract(h.deployment, '$.number')
FROM heads AS h
WHERE h.gone = 0
  AND json_extract(h.deployment, '$.stage') IN ('pending', 'fetching', 'starting', 'verifying', 'draining', 'rolling-back');
