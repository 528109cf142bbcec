//! A disk that is really full: a small file system in memory, where the test may mount one.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keymill_core::seam::store::{Page, Path, Store, StoreError, Write};
use keymill_store_sqlite::{Config, open};

/// A mounted file system of 2 MiB.
struct SmallDisk {
    point: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self { point: tempfile::tempdir().expect("a temporary directory") };
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "none"])
            .arg(disk.point.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(disk)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open. Where nothing is mounted it does nothing.
        let _ = Command::new("umount").arg("-l").arg(self.point.path()).stderr(Stdio::null()).status();
    }
}

fn path(text: &str) -> Path {
    Path::new(text).expect("the test names paths")
}

fn put(at: &str, value: &[u8]) -> Write {
    Write { path: path(at), expected: None, value: Some(value.to_vec()) }
}

/// Fills what is left of the disk, to the last byte.
fn fill(file: &PathBuf) {
    let mut filler = fs::File::create(file).expect("the name fits");
    for block in [64 << 10, 4 << 10, 1] {
        while std::io::Write::write_all(&mut filler, &vec![0x55; block]).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_serving_and_takes_writes_again() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    };
    let store = open(Config::new(disk.join("data"))).expect("the store opens");
    let value = vec![7; 8 << 10];
    let mut kept = Vec::new();
    let write_until_full = |kept: &mut Vec<String>| {
        loop {
            let at = format!("key/{:04}", kept.len());
            match store.commit(&[put(&at, &value)]) {
                Ok(_) => kept.push(at),
                Err(StoreError::Full(_)) => return,
                Err(other) => panic!("the disk is full, not {other}"),
            }
            assert!(kept.len() < 1000, "the disk holds 2 MiB");
        }
    };
    for i in 0..5 {
        kept.push(format!("key/{i:04}"));
        store.commit(&[put(&kept[i], &value)]).expect("there is space");
    }
    for round in 0..3 {
        let filler = disk.join("filler");
        fill(&filler);
        write_until_full(&mut kept);
        let revision = store.revision().expect("it reads");
        for _ in 0..3 {
            assert!(matches!(store.commit(&[put("key/more", &value)]), Err(StoreError::Full(_))));
        }
        assert_eq!(store.revision().expect("it reads"), revision);
        let page = Page { after: None, limit: usize::MAX };
        let listed = store.list(&path("key/"), page).expect("reads go on");
        assert!(listed.iter().map(|entry| entry.path.as_str()).eq(kept.iter()), "round {round}");
        assert!(store.get(&path(&kept[0])).expect("reads go on").is_some_and(|entry| entry.value == value));
        fs::remove_file(&filler).expect("it is ours");
        let at = format!("key/{:04}", kept.len());
        store.commit(&[put(&at, &value)]).expect("there is space again");
        kept.push(at);
    }
    drop(store);
    let store = open(Config::new(disk.join("data"))).expect("the store opens");
    let listed = store.list(&path("key/"), Page { after: None, limit: usize::MAX }).expect("it lists");
    assert!(listed.iter().map(|entry| entry.path.as_str()).eq(kept.iter()));
    assert!(listed.iter().all(|entry| entry.value == value));
}
