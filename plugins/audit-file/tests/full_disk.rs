//! A disk that fills (security case F4), on a small file system of its own; it takes root to mount one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keymill_audit_file::{Config, open};
use keymill_core::seam::audit::{AuditError, AuditLog};

/// One file system at a time: a child that another test starts holds the files of this one until it runs its program, and what was
/// removed then still takes space.
static ONE: Mutex<()> = Mutex::new(());

struct Mounted {
    at: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Mounted {
    fn new(size: &str) -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = tempfile::tempdir().expect("a temporary directory");
        let options = format!("size={size},mode=0700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at.path())
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self { at, _one: one })
    }

    fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Takes all the space that is left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("a file takes no space yet");
    for size in [64 << 10, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_whole_lines_spends_the_reserve_and_recovers() {
    let Some(disk) = Mounted::new("4m") else {
        eprintln!("skipped: mounting a tmpfs takes root");
        return;
    };
    let config = Config { directory: disk.path().join("audit"), reserve_bytes: 1 << 20 };
    let log = open(config).unwrap();
    let mut sink = log.open_chain("a").unwrap();
    sink.append(b"before\n").unwrap();
    let ballast = disk.path().join("ballast");
    fill(&ballast);

    let mut line = vec![b'x'; 300 << 10];
    line.push(b'\n');
    let file = disk.path().join("audit/a.jsonl");
    let length = || file.metadata().unwrap().len();
    assert!(matches!(sink.append(&line), Err(AuditError::Full(_))));
    assert_eq!(length(), 7, "no part of the line is kept");

    sink.release_reserve();
    sink.append(&line).unwrap();
    sink.append(b"in flight\n").unwrap();
    assert!(!sink.restore_reserve(), "there is no space for the reserve");
    while sink.append(&line).is_ok() {}
    let kept = length();
    assert!(matches!(sink.append(&line), Err(AuditError::Full(_))));
    assert_eq!(length(), kept);

    fs::remove_file(&ballast).unwrap();
    assert!(sink.restore_reserve());
    sink.append(b"after\n").unwrap();
    let mut last = (Vec::new(), false);
    let mut torn = 0;
    log.read("a", &mut |line| {
        torn += u32::from(line.torn);
        last = (line.bytes.to_vec(), line.torn);
        true
    })
    .unwrap();
    assert_eq!((last, torn), ((b"after".to_vec(), false), 0));
}

#[test]
fn a_chain_opens_on_a_full_disk_without_its_reserve() {
    let Some(disk) = Mounted::new("2m") else {
        eprintln!("skipped: mounting a tmpfs takes root");
        return;
    };
    let ballast = disk.path().join("ballast");
    let log = open(Config::at(disk.path().join("audit"))).unwrap();
    fill(&ballast);
    let mut sink = log.open_chain("a").unwrap();
    assert!(!sink.restore_reserve());
    assert!(matches!(sink.append(b"line\n"), Err(AuditError::Full(_))));
    fs::remove_file(&ballast).unwrap();
    assert!(sink.restore_reserve());
    sink.append(b"line\n").unwrap();
}
