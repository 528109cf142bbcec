//! The store over its life, on a real server: who opens it, several nodes at once, leases, TLS, and a full disk.
#![allow(clippy::unwrap_used, reason = "tests")]

mod scene;

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Change, Page, Revision, Store, StoreError};
use keymill_databases::{Database, Postgres};
use keymill_store_postgres::{Config, OpenError, Place, Tls, open};
use scene::{Between, SILENT, STALLS_COMMIT, at, fresh, fresh_schema, path, put, server_with, shared_server};

#[test]
fn records_and_fences_outlast_a_restart_and_schemas_are_apart() {
    let postgres = shared_server();
    let (store, schema) = fresh(&postgres);
    let (other, _) = fresh(&postgres);
    let revision = store.commit(&[put("key/a", None, b"1"), put("key/b", None, b"2")]).unwrap();
    let ttl = Duration::from_secs(600);
    let before = store.lease(&path("lease/x"), "node-1", ttl).unwrap().unwrap();
    drop(store);

    let store = open(at(postgres.port(), &schema)).unwrap();
    let listed = store.list(&path("key/"), Page { after: None, limit: 9 }).unwrap();
    assert_eq!(listed.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [revision; 2]);
    assert!(store.revision().unwrap() >= before.fence);
    // Unlike a store of one process, this one knows who holds it.
    assert_eq!(store.lease(&path("lease/x"), "node-2", ttl).unwrap(), None);
    assert_eq!(store.lease(&path("lease/x"), "node-1", ttl).unwrap(), Some(before));
    assert_eq!(other.revision().unwrap(), Revision(0));
    assert!(other.get(&path("key/a")).unwrap().is_none());
}

#[test]
fn nodes_that_start_together_make_one_schema() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let start = || open(at(postgres.port(), &schema)).unwrap();
    let stores: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (i, store) in stores.iter().enumerate() {
        store.commit(&[put(&format!("key/{i}"), None, b"")]).unwrap();
    }
    assert!(stores.iter().all(|store| store.revision().unwrap() == Revision(6)));
}

/// Each look of a watch was: tables without statistics seem to be large.
#[test]
fn no_statement_is_compiled_however_much_the_server_expects_it_to_cost() {
    let postgres = server_with(&[
        "fsync=on",
        "log_statement=none",
        "log_min_messages=debug1",
        "jit=on",
        "jit_above_cost=1",
    ]);
    let compilers = || postgres.log().matches("loaded JIT provider").count();
    assert_eq!(postgres.sql("SELECT pg_jit_available()"), "t", "tests/run installs a server that has it");
    postgres.sql("SELECT count(*) FROM pg_class");
    let others = compilers();
    assert!(others > 0, "the log tells of it");
    let (store, _) = fresh(&postgres);
    let first = store.commit(&[put("key/a", None, b"1")]).unwrap();
    store.commit(&[put("key/a", Some(first), b"2"), put("key/b", None, b"1")]).unwrap();
    assert_eq!(store.list(&path("key/"), Page { after: None, limit: 9 }).unwrap().len(), 2);
    store.watch(&path("key/"), Revision(0), &mut |_| false).unwrap();
    store.scan(&mut |_| true).unwrap();
    store.lease(&path("lease/x"), "node-1", Duration::from_secs(600)).unwrap().unwrap();
    assert_eq!(compilers(), others);
}

#[test]
fn a_schema_that_is_newer_or_not_ours_is_refused_and_left_alone() {
    let postgres = shared_server();
    let (store, schema) = fresh(&postgres);
    drop(store);
    postgres.sql(&format!("UPDATE {schema}.state SET version = 7"));
    let refused = open(at(postgres.port(), &schema)).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 7, known: 1, .. }), "{refused}");
    for theirs in ["theirs (x int)", "state (x int)"] {
        let schema = fresh_schema();
        postgres.sql(&format!("CREATE SCHEMA {schema} CREATE TABLE {theirs}"));
        postgres.sql(&format!("GRANT ALL ON SCHEMA {schema} TO keymill"));
        postgres.sql(&format!("GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO keymill"));
        let refused = open(at(postgres.port(), &schema)).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    }
}

#[test]
fn an_empty_schema_of_an_administrator_needs_no_right_to_make_one() {
    let postgres = shared_server();
    postgres.sql("CREATE ROLE narrow LOGIN PASSWORD 'a password'");
    postgres.sql("CREATE SCHEMA narrowed AUTHORIZATION narrow");
    let narrow = |schema: &str| Config { user: "narrow".into(), ..at(postgres.port(), schema) };
    open(narrow("narrowed")).unwrap().commit(&[put("key/a", None, b"1")]).unwrap();
    let refused = open(narrow("of_its_own")).unwrap_err().to_string();
    assert!(refused.contains("42501"), "{refused}");
}

#[test]
fn a_server_that_does_not_sync_is_refused_and_one_session_is_told_to_wait() {
    let careless = Postgres::start_with(&["log_statement=none"]);
    careless.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    careless.sql("GRANT CREATE ON DATABASE postgres TO keymill");
    let refused = open(at(careless.port(), "keymill")).unwrap_err();
    assert!(matches!(&refused, OpenError::Unfit(why) if why.contains("fsync")), "{refused}");

    let postgres = shared_server();
    postgres.sql("CREATE ROLE hasty LOGIN PASSWORD 'a password'");
    postgres.sql("ALTER ROLE hasty SET synchronous_commit = off");
    postgres.sql("CREATE SCHEMA hasty AUTHORIZATION hasty");
    // It would refuse if the setting had stayed.
    open(Config { user: "hasty".into(), ..at(postgres.port(), "hasty") }).unwrap();
}

#[test]
fn tls_is_to_the_server_whose_ca_was_named() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let over = |host: &str, ca_file| Config {
        places: vec![Place::Tcp { host: host.into(), port: postgres.port() }],
        tls: Some(Tls { ca_file, server_name: None }),
        timeout: Duration::from_secs(3),
        ..at(postgres.port(), &schema)
    };
    let store = open(over("localhost", postgres.ca_file())).unwrap();
    store.commit(&[put("key/a", None, b"1")]).unwrap();
    let secured = postgres.sql("SELECT count(*) FROM pg_stat_ssl WHERE ssl");
    assert!(secured.parse::<u32>().unwrap() > 0, "{secured}");
    let refused = open(over("localhost", postgres.other_ca_file())).unwrap_err();
    assert!(matches!(refused, OpenError::Database(StoreError::Unavailable(_))), "{refused}");
    let named = Config {
        tls: Some(Tls { ca_file: postgres.ca_file(), server_name: Some("another.example".into()) }),
        ..over("localhost", postgres.ca_file())
    };
    assert!(open(named).is_err());
    let wrong = Config {
        password: Some(keymill_core::Sensitive::copied(b"wrong")),
        ..over("localhost", postgres.ca_file())
    };
    let began = Instant::now();
    let refused = open(wrong).unwrap_err().to_string();
    assert!(refused.contains("28P01") && began.elapsed() < Duration::from_secs(3), "{refused}");
}

#[test]
fn a_store_works_on_threads_of_another_runtime_and_over_a_socket() {
    let postgres = shared_server();
    let directory = postgres.socket().parent().unwrap().to_owned();
    let config = Config {
        places: vec![Place::Socket { directory, port: postgres.port() }],
        ..at(postgres.port(), &fresh_schema())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let task = async move {
        let store = open(config).unwrap();
        let mut last = None;
        for i in 0..200_u8 {
            last = Some(store.commit(&[put("key/a", last, &[i])]).unwrap());
        }
        let mut idle = 0;
        store
            .watch(&path("key/"), Revision(0), &mut |change| {
                idle += usize::from(matches!(change, Change::Current { .. }));
                idle < 2
            })
            .unwrap();
        drop(store);
    };
    runtime.block_on(async { tokio::spawn(task).await }).unwrap();
}

#[test]
fn a_server_that_is_down_is_passed_over() {
    let postgres = shared_server();
    let down = "127.0.0.1:1".parse().unwrap();
    let up = Place::Tcp { host: "127.0.0.1".into(), port: postgres.port() };
    let store = open(Config { places: vec![down, up], ..at(postgres.port(), &fresh_schema()) }).unwrap();
    store.commit(&[put("key/a", None, b"1")]).unwrap();
}

/// Commits of several nodes, each of some records, against watches of two.
#[test]
fn ids_of_commits_are_bounded() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let store = open(Config { kept_commits: 1024, ..at(postgres.port(), &schema) }).unwrap();
    store.commit(&[put("key/a", None, b"1")]).unwrap();
    postgres.sql(&format!(
        "INSERT INTO {schema}.commits SELECT n, decode(md5(n::text), 'hex') FROM generate_series(2, 4000) n; \
         UPDATE {schema}.state SET revision = 4000"
    ));
    for i in 0..100 {
        store.commit(&[put(&format!("key/{i}"), None, b"")]).unwrap();
    }
    let kept: u32 = postgres.sql(&format!("SELECT count(*) FROM {schema}.commits")).parse().unwrap();
    assert!((1024..1024 + 64).contains(&kept), "{kept}");
}

#[test]
fn a_lease_goes_on_while_its_holder_is_paused_and_fences_it_off() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let (paused, other) =
        (open(at(postgres.port(), &schema)).unwrap(), open(at(postgres.port(), &schema)).unwrap());
    let (name, short, long) = (path("lease/timer"), Duration::from_millis(400), Duration::from_secs(600));
    let first = paused.lease(&name, "paused", short).unwrap().unwrap();
    assert_eq!(other.lease(&name, "other", long).unwrap(), None);
    let asked = Instant::now();
    let second = loop {
        match other.lease(&name, "other", long).unwrap() {
            Some(lease) => break lease,
            None => thread::sleep(Duration::from_millis(20)),
        }
        assert!(asked.elapsed() < Duration::from_secs(20));
    };
    assert!(second.fence > first.fence);
    // It comes back, and does not have it any more.
    assert_eq!(paused.lease(&name, "paused", short).unwrap(), None);
    assert_eq!(other.lease(&name, "other", long).unwrap(), Some(second));
    // A fence is a revision: what is written under the lease comes after it.
    assert!(other.commit(&[put("key/a", None, b"")]).unwrap() > second.fence);
}

#[test]
fn a_node_that_is_paused_in_a_commit_does_not_hold_the_others_up() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let between = Between::start(postgres.port());
    let paused = open(Config { timeout: Duration::from_secs(2), ..at(between.port, &schema) }).unwrap();
    let other = open(at(postgres.port(), &schema)).unwrap();
    between.set(STALLS_COMMIT);
    thread::scope(|scope| {
        let committing = scope.spawn(|| paused.commit(&[put("key/paused", None, b"1")]));
        while between.losses() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        // The counter is taken, until the server lets go of who has it.
        let began = Instant::now();
        other.commit(&[put("key/other", None, b"1")]).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let result = committing.join().unwrap();
        let there = other.get(&path("key/paused")).unwrap();
        assert_eq!(result.as_ref().ok().copied(), there.map(|entry| entry.revision), "{result:?}");
    });
}

#[test]
fn a_server_that_falls_silent_is_given_up_in_time() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let between = Between::start(postgres.port());
    let timeout = Duration::from_secs(1);
    let store = open(Config { timeout, ..at(between.port, &schema) }).unwrap();
    let last = store.commit(&[put("key/a", None, b"1")]).unwrap();
    between.set(SILENT);
    let in_time = |bound: u32, ask: &dyn Fn() -> Result<(), StoreError>| {
        let began = Instant::now();
        let result = ask();
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
        // And time for a busy machine.
        assert!(began.elapsed() < timeout * bound + Duration::from_secs(2), "{:?}", began.elapsed());
    };
    in_time(1, &|| store.get(&path("key/a")).map(drop));
    in_time(1, &|| store.scan(&mut |_| true));
    in_time(1, &|| store.lease(&path("lease/x"), "node", timeout).map(drop));
    in_time(1, &|| store.watch(&path("key/"), last, &mut |change| !matches!(change, Change::Current { .. })));
    in_time(2, &|| store.commit(&[put("key/b", None, b"1")]).map(drop));
    between.set(scene::PASSES);
    store.commit(&[put("key/b", None, b"1")]).unwrap();
}

#[test]
fn connections_are_bounded_and_those_who_wait_are_told() {
    let postgres = shared_server();
    let config = Config {
        max_connections: 4,
        timeout: Duration::from_millis(500),
        notify: false,
        ..at(postgres.port(), &fresh_schema())
    };
    let store = open(config).unwrap();
    store.commit(&[put("key/a", None, b"1")]).unwrap();
    let mut refused = None;
    store
        .scan(&mut |_| {
            store
                .scan(&mut |_| {
                    store
                        .scan(&mut |_| {
                            store
                                .scan(&mut |_| {
                                    refused = store.get(&path("key/a")).err();
                                    true
                                })
                                .unwrap();
                            true
                        })
                        .unwrap();
                    true
                })
                .unwrap();
            true
        })
        .unwrap();
    assert!(matches!(&refused, Some(StoreError::Unavailable(why)) if why.contains('4')), "{refused:?}");
    store.get(&path("key/a")).unwrap().unwrap();
}

#[test]
fn a_scan_streams_more_than_a_fetch() {
    let postgres = shared_server();
    let (store, _) = fresh(&postgres);
    for chunk in 0..4 {
        let writes: Vec<_> = (0..200).map(|i| put(&format!("key/{chunk}-{i}"), None, &[7; 20_000])).collect();
        store.commit(&writes).unwrap();
    }
    let (mut count, mut bytes) = (0, 0);
    store
        .scan(&mut |row| {
            count += 1;
            bytes += row.value.len();
            true
        })
        .unwrap();
    assert_eq!((count, bytes), (800, 800 * 20_000));
}

#[test]
fn a_row_that_was_altered_does_not_stop_the_rest() {
    let postgres = shared_server();
    let (store, schema) = fresh(&postgres);
    for at in ["key/a", "key/b", "key/c"] {
        store.commit(&[put(at, None, b"1")]).unwrap();
    }
    postgres.sql(&format!("UPDATE {schema}.records SET path = 'key/../b' WHERE path = 'key/b'"));
    postgres.sql(&format!("UPDATE {schema}.records SET revision = 9000 WHERE path = 'key/c'"));
    let listed = store.list(&path("key/"), Page { after: None, limit: 9 }).unwrap();
    assert_eq!(listed.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["key/a", "key/c"]);
    let mut told = Vec::new();
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
        Change::Commit { writes, .. } => {
            told.extend(writes.iter().map(|write| write.path.to_string()));
            true
        }
        Change::Current { .. } => false,
    });
    watched.unwrap();
    assert_eq!(told, ["key/a"]);
    postgres.sql(&format!("DROP TABLE {schema}.records"));
    assert!(matches!(store.get(&path("key/a")), Err(StoreError::Corrupt(_))));
}

#[test]
fn closing_ends_watches_and_writes_but_not_reads() {
    let postgres = shared_server();
    let (store, _) = fresh(&postgres);
    store.commit(&[put("key/a", None, b"1")]).unwrap();
    let (idle, is_idle) = mpsc::channel();
    thread::scope(|scope| {
        let watching =
            scope.spawn(|| store.watch(&path("key/"), Revision(1), &mut |_| idle.send(()).is_ok()));
        is_idle.recv().unwrap();
        store.close();
        watching.join().unwrap().unwrap();
    });
    assert!(matches!(store.commit(&[put("key/b", None, b"2")]), Err(StoreError::Unavailable(_))));
    assert!(store.lease(&path("lease/x"), "node-1", Duration::from_secs(1)).is_err());
    assert!(store.get(&path("key/a")).unwrap().is_some());
}

/// A small file system in memory, where the test may mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(postgres: &Postgres) -> Option<Self> {
        let folder = postgres.socket().parent().unwrap().to_owned();
        let (owner, point) = (std::fs::metadata(&folder).unwrap(), folder.join("small"));
        std::fs::create_dir(&point).unwrap();
        let options = format!("size=4m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&point)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(point))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_serving_and_takes_writes_again() {
    let postgres = scene::server();
    let Some(disk) = SmallDisk::mount(&postgres) else {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    };
    let (store, schema) = fresh(&postgres);
    postgres.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display()));
    postgres.sql(&format!("ALTER TABLE {schema}.records SET TABLESPACE small"));
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![0x55; 1 << 20]).unwrap();
    let value = vec![7; 100_000];
    let mut kept = Vec::new();
    let why = loop {
        let at = format!("key/{:03}", kept.len());
        match store.commit(&[put(&at, None, &value)]) {
            Ok(revision) => kept.push((at, revision)),
            Err(StoreError::Full(why)) => break why,
            Err(other) => panic!("the disk is full, not {other}"),
        }
        assert!(kept.len() < 100, "the disk holds 4 MiB");
    };
    assert!(why.contains("53100") && kept.len() > 5, "{why}");
    let both = [put("small/a", None, b""), put("small/b", None, &value)];
    assert!(matches!(store.commit(&both), Err(StoreError::Full(_))));
    assert!(store.get(&path("small/a")).unwrap().is_none(), "all or none");
    assert_eq!(store.revision().unwrap(), kept[kept.len() - 1].1);
    for (at, revision) in &kept {
        let entry = store.get(&path(at)).unwrap().unwrap();
        assert!(entry.value == value && entry.revision == *revision);
    }
    std::fs::remove_file(&filler).unwrap();
    store.commit(&[put("key/again", None, &value)]).unwrap();
}
