BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE deployments (
	id INTEGER NOT NULL, 
	app TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	started_at TEXT NOT NULL, 
	finished_at TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	outcome TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	phases TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT deployments_app UNIQUE (app, number)
);
INSERT INTO "deployments" VALUES(1,'web',4,2,'v1','restart','2026-11-27T13:33:10.187Z','2026-11-27T13:33:10.196Z',0.01,'succeeded','it was healthy for 10 s','[{"phase":"pending","at":"2026-11-27T13:33:10.187Z","seconds":0.01},{"phase":"succeeded","at":"2026-11-27T13:33:10.196Z","seconds":null}]');
CREATE TABLE events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at TEXT NOT NULL, 
	app TEXT, 
	revision INTEGER, 
	kind TEXT NOT NULL, 
	message TEXT NOT NULL
);
INSERT INTO "events" VALUES(1,'2026-11-24T02:23:14.617Z',NULL,NULL,'AgentStarted','boreas-agent 0.1.0 started with pid 15685');
INSERT INTO "events" VALUES(2,'2026-11-24T02:23:14.780Z','clock',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(3,'2026-11-24T02:23:14.838Z','clock',1,'Started','started clock.1.0: revision 1 (v1) wants it');
INSERT INTO "events" VALUES(4,'2026-11-24T02:23:14.838Z','clock',1,'Started','started clock.1.1: revision 1 (v1) wants it');
INSERT INTO "events" VALUES(5,'2026-11-24T02:23:15.037Z','clock',2,'Applied','recorded by api 127.0.0.1: version v2, revision 2');
INSERT INTO "events" VALUES(6,'2026-11-24T02:23:15.879Z','clock',1,'Stopped','stopped clock.1.1: superseded by revision 2 (v2)');
INSERT INTO "events" VALUES(7,'2026-11-24T02:23:15.879Z','clock',1,'Stopped','stopped clock.1.0: superseded by revision 2 (v2)');
INSERT INTO "events" VALUES(8,'2026-11-24T02:23:15.879Z','clock',2,'Started','started clock.2.1: revision 2 (v2) wants it');
INSERT INTO "events" VALUES(9,'2026-11-24T02:23:15.879Z','clock',2,'Started','started clock.2.0: revision 2 (v2) wants it');
INSERT INTO "events" VALUES(10,'2026-11-24T02:23:15.889Z','clock',1,'Removed','removed clock.1.1: superseded by revision 2 (v2)');
INSERT INTO "events" VALUES(11,'2026-11-24T02:23:15.889Z','clock',1,'Removed','removed clock.1.0: superseded by revision 2 (v2)');
INSERT INTO "events" VALUES(12,'2026-11-24T02:23:16.110Z','hello',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(13,'2026-11-24T02:23:16.126Z','clock',2,'Exited','clock.2.0 killed by SIGKILL after 0.225 s');
INSERT INTO "events" VALUES(14,'2026-11-24T02:23:16.126Z','clock',2,'Started','started clock.2.0: it ended: killed by SIGKILL');
INSERT INTO "events" VALUES(15,'2026-11-24T02:23:16.151Z','hello',1,'Exited','hello.1.0 exited with code 0 after 0.00713 s');
INSERT INTO "events" VALUES(16,'2026-11-24T02:23:16.151Z','hello',1,'Started','started hello.1.0: revision 1 (v1) wants it');
INSERT INTO "events" VALUES(17,'2026-11-24T02:23:16.173Z','broken',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(18,'2026-11-24T02:23:16.198Z','broken',1,'Exited','broken.1.0 exited with code 3 after 0.00546 s');
INSERT INTO "events" VALUES(19,'2026-11-24T02:23:16.198Z','broken',1,'Started','started broken.1.0: revision 1 (v1) wants it');
INSERT INTO "events" VALUES(20,'2026-11-24T02:23:16.211Z','parked',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(21,'2026-11-24T02:23:16.236Z','parked',1,'Held','parked is held by api 127.0.0.1 until released: maintenance');
INSERT INTO "events" VALUES(22,'2026-11-24T02:23:16.240Z','gone',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(23,'2026-11-24T02:23:16.266Z','gone',1,'Started','started gone.1.0: revision 1 (v1) wants it');
INSERT INTO "events" VALUES(24,'2026-11-24T02:23:16.482Z','gone',2,'RemoveRequested','removal requested by api 127.0.0.1: version v1, revision 2');
INSERT INTO "events" VALUES(25,'2026-11-24T02:23:16.505Z','gone',1,'Stopped','stopped gone.1.0: the app was removed by api 127.0.0.1');
INSERT INTO "events" VALUES(26,'2026-11-24T02:23:16.516Z','gone',1,'Removed','removed gone.1.0: the app was removed by api 127.0.0.1');
INSERT INTO "events" VALUES(27,'2026-11-24T02:23:16.521Z','web',1,'Applied','recorded by api 127.0.0.1: version v1, revision 1');
INSERT INTO "events" VALUES(28,'2026-11-24T02:23:17.540Z',NULL,NULL,'AgentStopped','boreas-agent 0.1.0 stopped; apps go on running');
INSERT INTO "events" VALUES(29,'2026-11-27T13:33:10.187Z','web',2,'Restarted','restart requested by api 127.0.0.1: version v1, revision 2');
INSERT INTO "events" VALUES(30,'2026-11-27T13:33:10.187Z','web',1,'Superseded','revision 1 was superseded by revision 2 before it was healthy');
INSERT INTO "events" VALUES(31,'2026-11-27T13:33:10.214Z','web',3,'Applied','recorded by api 127.0.0.1: version v1.1, revision 3');
CREATE TABLE exits (
	id INTEGER NOT NULL, 
	app TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	replica INTEGER NOT NULL, 
	run TEXT NOT NULL, 
	started_at TEXT, 
	exited_at TEXT NOT NULL, 
	exit_code INTEGER, 
	signal TEXT, 
	oom_killed INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	seconds FLOAT, 
	output_tail TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT exits_run UNIQUE (app, revision, replica, run)
);
INSERT INTO "exits" VALUES(1,'clock',1,1,'1','2026-11-24T02:23:14.806Z','2026-11-24T02:23:15.831Z',NULL,'SIGTERM',0,'stopped: superseded by revision 2 (v2)',1.02533032300016202498e+00,'');
INSERT INTO "exits" VALUES(2,'clock',1,0,'1','2026-11-24T02:23:14.821Z','2026-11-24T02:23:15.828Z',NULL,'SIGTERM',0,'stopped: superseded by revision 2 (v2)',1.00706641900069371331e+00,'');
INSERT INTO "exits" VALUES(3,'clock',2,0,'1','2026-11-24T02:23:15.866Z','2026-11-24T02:23:16.091Z',NULL,'SIGKILL',0,'',2.24742940999931306578e-01,'');
INSERT INTO "exits" VALUES(4,'hello',1,0,'1','2026-11-24T02:23:16.141Z','2026-11-24T02:23:16.149Z',0,NULL,0,'',7.12935000046854838728e-03,'hello
');
INSERT INTO "exits" VALUES(5,'broken',1,0,'1','2026-11-24T02:23:16.182Z','2026-11-24T02:23:16.188Z',3,NULL,0,'',5.46011900041776243597e-03,'');
INSERT INTO "exits" VALUES(6,'gone',1,0,'1','2026-11-24T02:23:16.248Z','2026-11-24T02:23:16.498Z',NULL,'SIGTERM',0,'stopped: the app was removed by api 127.0.0.1',2.49940611000056378543e-01,'');
CREATE TABLE heads (
	app TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	gone INTEGER NOT NULL, 
	status TEXT NOT NULL, 
	level INTEGER NOT NULL, 
	msg TEXT NOT NULL, 
	updated TEXT NOT NULL, 
	proven TEXT NOT NULL, 
	attempts TEXT NOT NULL, 
	hold TEXT, 
	unknown_since TEXT, 
	homes TEXT NOT NULL, deployment TEXT, good INTEGER, good_image TEXT, 
	PRIMARY KEY (app)
)
 WITHOUT ROWID

;
INSERT INTO "heads" VALUES('broken',1,0,'failed',0,'exited with code 3','2026-11-24T02:23:16.198Z','','{"0":{"replica":0,"hash":"c0e65be9fe8aa612e70f2e6b68265261","failures":1,"exits":1,"free":false,"restarts":0,"started":false,"not_before":{"at":12194.254686210234,"delay":1.0507810052338282,"boot_id":"453f4901-81c4-4095-b871-4484e5b8ebf4"},"restarted":null,"last_failure":"","last_exit":{"run":"1","started_at":"2026-11-24T02:23:16.182542Z","exited_at":"2026-11-24T02:23:16.188002Z","code":3,"signal":null,"oom_killed":false,"reason":"","seconds":0.0054601190004177624,"output_tail":"","lost":false},"recorded":["1.1"]}}',NULL,NULL,'script',NULL,NULL,NULL);
INSERT INTO "heads" VALUES('clock',2,0,'running',90,'restarted: killed by SIGKILL','2026-11-24T02:23:16.126Z','21730637bb39557811d8e36e9eec13a0','{"0":{"replica":0,"hash":"21730637bb39557811d8e36e9eec13a0","failures":1,"exits":1,"free":true,"restarts":1,"started":true,"not_before":null,"restarted":{"at":12253.142045248,"delay":60.0,"boot_id":"453f4901-81c4-4095-b871-4484e5b8ebf4"},"last_failure":"","last_exit":{"run":"1","started_at":"2026-11-24T02:23:15.866846Z","exited_at":"2026-11-24T02:23:16.091584Z","code":null,"signal":"SIGKILL","oom_killed":false,"reason":"","seconds":0.2247429409999313,"output_tail":"","lost":false},"recorded":["2.1"]},"1":{"replica":1,"hash":"21730637bb39557811d8e36e9eec13a0","failures":0,"exits":0,"free":false,"restarts":0,"started":true,"not_before":null,"restarted":null,"last_failure":"","last_exit":null,"recorded":[]}}',NULL,NULL,'binary',NULL,NULL,NULL);
INSERT INTO "heads" VALUES('gone',2,1,'removing',0,'removed','2026-11-24T02:23:16.516Z','','{}',NULL,NULL,'',NULL,NULL,NULL);
INSERT INTO "heads" VALUES('hello',1,0,'completed',100,'completed: exited with code 0','2026-11-24T02:23:16.151Z','980428e15484a03d0595e1ef7e5dc754','{"0":{"replica":0,"hash":"980428e15484a03d0595e1ef7e5dc754","failures":1,"exits":1,"free":false,"restarts":0,"started":false,"not_before":{"at":12194.199421589034,"delay":1.0345117680327147,"boot_id":"453f4901-81c4-4095-b871-4484e5b8ebf4"},"restarted":null,"last_failure":"","last_exit":{"run":"1","started_at":"2026-11-24T02:23:16.141880Z","exited_at":"2026-11-24T02:23:16.149004Z","code":0,"signal":null,"oom_killed":false,"reason":"","seconds":0.007129350000468548,"output_tail":"hello\n","lost":false},"recorded":["1.1"]}}',NULL,NULL,'script',NULL,NULL,NULL);
INSERT INTO "heads" VALUES('parked',1,0,'stopped',0,'stopped: 0 replicas wanted','2026-11-24T02:23:16.219Z','','{}','{"by":"api 127.0.0.1","reason":"maintenance","until":null,"seconds":null,"expires":null,"boot_id":""}',NULL,'',NULL,NULL,NULL);
INSERT INTO "heads" VALUES('web',3,0,'pending',50,'revision 3 recorded; revision 2 still serves','2026-11-27T13:33:10.214Z','','{}',NULL,'{"at":12193.546897994,"delay":0.0,"boot_id":"453f4901-81c4-4095-b871-4484e5b8ebf4"}','','{"number":6,"revision":3,"version":"v1.1","kind":"apply","stage":"pending","phases":[{"phase":"pending","at":"2026-11-27T13:33:10.214Z","seconds":null}],"reason":"","spent":0.0,"unwell":null,"ready":0,"image":""}',2,'sha256:1111111111111111111111111111111111111111111111111111111111111111');
CREATE TABLE health (
	id INTEGER NOT NULL, 
	app TEXT NOT NULL, 
	version TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	status TEXT NOT NULL, 
	level INTEGER NOT NULL, 
	msg TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "health" VALUES(1,'clock','v1',1,'2026-11-24T02:23:14.780Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(2,'clock','v1',1,'2026-11-24T02:23:14.838Z','deploying',30,'running for less than 0.2 s');
INSERT INTO "health" VALUES(3,'clock','v1',1,'2026-11-24T02:23:15.007Z','deploying',64,'1 of 2 replicas ready; running for less than 0.2 s');
INSERT INTO "health" VALUES(4,'clock','v1',1,'2026-11-24T02:23:15.023Z','running',100,'2 of 2 replicas running');
INSERT INTO "health" VALUES(5,'clock','v2',2,'2026-11-24T02:23:15.037Z','pending',50,'revision 2 recorded; revision 1 still serves');
INSERT INTO "health" VALUES(6,'clock','v2',2,'2026-11-24T02:23:15.045Z','deploying',50,'revision 1 (v1) still serves; starting');
INSERT INTO "health" VALUES(7,'clock','v2',2,'2026-11-24T02:23:15.889Z','deploying',30,'running for less than 0.2 s');
INSERT INTO "health" VALUES(8,'clock','v2',2,'2026-11-24T02:23:16.049Z','deploying',64,'1 of 2 replicas ready; running for less than 0.2 s');
INSERT INTO "health" VALUES(9,'clock','v2',2,'2026-11-24T02:23:16.072Z','running',100,'2 of 2 replicas running');
INSERT INTO "health" VALUES(10,'hello','v1',1,'2026-11-24T02:23:16.110Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(11,'clock','v2',2,'2026-11-24T02:23:16.126Z','running',90,'restarted: killed by SIGKILL');
INSERT INTO "health" VALUES(12,'hello','v1',1,'2026-11-24T02:23:16.151Z','completed',100,'completed: exited with code 0');
INSERT INTO "health" VALUES(13,'broken','v1',1,'2026-11-24T02:23:16.173Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(14,'broken','v1',1,'2026-11-24T02:23:16.198Z','failed',0,'exited with code 3');
INSERT INTO "health" VALUES(15,'parked','v1',1,'2026-11-24T02:23:16.211Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(16,'parked','v1',1,'2026-11-24T02:23:16.219Z','stopped',0,'stopped: 0 replicas wanted');
INSERT INTO "health" VALUES(17,'gone','v1',1,'2026-11-24T02:23:16.240Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(18,'gone','v1',1,'2026-11-24T02:23:16.266Z','deploying',30,'running for less than 0.2 s');
INSERT INTO "health" VALUES(19,'gone','v1',1,'2026-11-24T02:23:16.458Z','running',100,'Running');
INSERT INTO "health" VALUES(20,'gone','v1',2,'2026-11-24T02:23:16.482Z','removing',0,'revision 2 recorded: to be removed');
INSERT INTO "health" VALUES(21,'web','v1',1,'2026-11-24T02:23:16.521Z','pending',1,'revision 1 recorded');
INSERT INTO "health" VALUES(22,'web','v1',1,'2026-11-24T02:23:16.532Z','pending',1,'state unknown: Docker is disabled in the configuration');
INSERT INTO "health" VALUES(23,'web','v1',2,'2026-11-27T13:33:10.187Z','pending',1,'revision 2 recorded');
INSERT INTO "health" VALUES(24,'web','v1',2,'2026-11-27T13:33:10.196Z','running',100,'Running');
INSERT INTO "health" VALUES(25,'web','v1.1',3,'2026-11-27T13:33:10.214Z','pending',50,'revision 3 recorded; revision 2 still serves');
CREATE TABLE node (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID

;
CREATE TABLE revisions (
	id INTEGER NOT NULL, 
	app TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	type TEXT NOT NULL, 
	record TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	submitted_at TEXT NOT NULL, 
	submitted_by TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT revisions_app UNIQUE (app, revision)
);
INSERT INTO "revisions" VALUES(1,'clock',1,'v1','apply','binary','{"app":"clock","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"13fdec7ae70ebdc279f20e49a7e28bb4","instance_hash":"5ce575df1529b3f0dad553def8e9b116","submitted_at":"2026-11-24T02:23:14.780Z","submitted_by":"api 127.0.0.1","pkg":{"command":["/bin/sleep","3600"],"environment":{"TOKEN":"not-a-secret"},"replicas":2,"rollout":{"min_healthy_seconds":0.2},"type":"binary"}}','{"command":["/bin/sleep","3600"],"environment":{"TOKEN":"***"},"replicas":2,"rollout":{"min_healthy_seconds":0.2},"type":"binary"}','2026-11-24T02:23:14.780Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(2,'clock',2,'v2','apply','binary','{"app":"clock","revision":2,"version":"v2","kind":"apply","generation":1,"spec_hash":"7b43310203a41c23c503a2568be9f20f","instance_hash":"21730637bb39557811d8e36e9eec13a0","submitted_at":"2026-11-24T02:23:15.037Z","submitted_by":"api 127.0.0.1","pkg":{"command":["/bin/sleep","3601"],"environment":{"TOKEN":"not-a-secret"},"replicas":2,"rollout":{"min_healthy_seconds":0.2},"type":"binary"}}','{"command":["/bin/sleep","3601"],"environment":{"TOKEN":"***"},"replicas":2,"rollout":{"min_healthy_seconds":0.2},"type":"binary"}','2026-11-24T02:23:15.037Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(3,'hello',1,'v1','apply','script','{"app":"hello","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"d5b69b14ff29e1445dd26508b2535338","instance_hash":"980428e15484a03d0595e1ef7e5dc754","submitted_at":"2026-11-24T02:23:16.110Z","submitted_by":"api 127.0.0.1","pkg":{"command":["echo hello"],"type":"script"}}','{"command":["echo hello"],"type":"script"}','2026-11-24T02:23:16.110Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(4,'broken',1,'v1','apply','script','{"app":"broken","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"47525e9d432fbcd66e3af821f82495fd","instance_hash":"c0e65be9fe8aa612e70f2e6b68265261","submitted_at":"2026-11-24T02:23:16.173Z","submitted_by":"api 127.0.0.1","pkg":{"command":["exit 3"],"restart":{"policy":"never"},"type":"script"}}','{"command":["exit 3"],"restart":{"policy":"never"},"type":"script"}','2026-11-24T02:23:16.173Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(5,'parked',1,'v1','apply','binary','{"app":"parked","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"352c6230fbb2c197379b10261e0f3572","instance_hash":"b0ee45970473d4a3dade89204866cbc3","submitted_at":"2026-11-24T02:23:16.211Z","submitted_by":"api 127.0.0.1","pkg":{"command":["/bin/sleep","3602"],"replicas":0,"type":"binary"}}','{"command":["/bin/sleep","3602"],"replicas":0,"type":"binary"}','2026-11-24T02:23:16.211Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(6,'gone',1,'v1','apply','binary','{"app":"gone","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"751d3561e8e7960c88cb8341c432b986","instance_hash":"a5df4978974b33899b52a29873b27ee9","submitted_at":"2026-11-24T02:23:16.240Z","submitted_by":"api 127.0.0.1","pkg":{"command":["/bin/sleep","3603"],"rollout":{"min_healthy_seconds":0.2},"type":"binary"}}','{"command":["/bin/sleep","3603"],"rollout":{"min_healthy_seconds":0.2},"type":"binary"}','2026-11-24T02:23:16.240Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(7,'gone',2,'v1','remove','binary','{"app":"gone","revision":2,"version":"v1","kind":"remove","generation":1,"spec_hash":"751d3561e8e7960c88cb8341c432b986","instance_hash":"a5df4978974b33899b52a29873b27ee9","submitted_at":"2026-11-24T02:23:16.482Z","submitted_by":"api 127.0.0.1","pkg":{"command":["/bin/sleep","3603"],"rollout":{"min_healthy_seconds":0.2},"type":"binary"}}','{"command":["/bin/sleep","3603"],"rollout":{"min_healthy_seconds":0.2},"type":"binary"}','2026-11-24T02:23:16.482Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(8,'web',1,'v1','apply','docker','{"app":"web","revision":1,"version":"v1","kind":"apply","generation":1,"spec_hash":"942bd4a91bc5ff1db528b63b040a29dd","instance_hash":"d72a5be9712d3bb1ed98356cf6f10573","submitted_at":"2026-11-24T02:23:16.521Z","submitted_by":"api 127.0.0.1","pkg":{"image":"registry.local/web:v1","type":"docker"}}','{"image":"registry.local/web:v1","type":"docker"}','2026-11-24T02:23:16.521Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(9,'web',2,'v1','restart','docker','{"app":"web","revision":2,"version":"v1","kind":"restart","generation":2,"spec_hash":"942bd4a91bc5ff1db528b63b040a29dd","instance_hash":"f1901527e73bb5b14ab3ead912cd9ecc","submitted_at":"2026-11-27T13:33:10.187Z","submitted_by":"api 127.0.0.1","pkg":{"image":"registry.local/web:v1","type":"docker"}}','{"image":"registry.local/web:v1","type":"docker"}','2026-11-27T13:33:10.187Z','api 127.0.0.1');
INSERT INTO "revisions" VALUES(10,'web',3,'v1.1','apply','docker','{"app":"web","revision":3,"version":"v1.1","kind":"apply","generation":2,"spec_hash":"94365bf8b6df80973870ec3e21046252","instance_hash":"1a4a7a0a63eeda62692b5f446b2f518e","submitted_at":"2026-11-27T13:33:10.214Z","submitted_by":"api 127.0.0.1","pkg":{"image":"registry.local/web:v1.1","type":"docker"}}','{"image":"registry.local/web:v1.1","type":"docker"}','2026-11-27T13:33:10.214Z','api 127.0.0.1');
CREATE INDEX health_app ON health (app, id);
CREATE INDEX events_app ON events (app, id);
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
CREATE VIEW v_events AS
SELECT id, at, app, revision, kind, message
FROM events;
CREATE VIEW v_deployments AS
SELECT d.app, d.revision, d.version, d.kind, d.started_at, d.finished_at, d.seconds, d.outcome, d.reason,
       json_extract(d.phases, '$[#-1].phase') AS phase, d.phases, d.number AS id
FROM deployments AS d
WHERE NOT EXISTS (
    SELECT 1 FROM heads AS h
    WHERE h.app = d.app AND h.gone = 0 AND json_extract(h.deployment, '$.number') = d.number
      AND json_extract(h.deployment, '$.stage') = 'rolling-back'
)
UNION ALL
SELECT h.app, json_extract(h.deployment, '$.revision'), json_extract(h.deployment, '$.version'), json_extract(h.deployment, '$.kind'),
       json_extract(h.deployment, '$.phases[0].at'), NULL, NULL, NULL, json_extract(h.deployment, '$.reason'),
       json_extract(h.deployment, '$.stage'), json_extract(h.deployment, '$.phases'), json_extract(h.deployment, '$.number')
FROM heads AS h
WHERE h.gone = 0
  AND json_extract(h.deployment, '$.stage') IN ('pending', 'fetching', 'starting', 'verifying', 'draining', 'rolling-back');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',31);
COMMIT;
