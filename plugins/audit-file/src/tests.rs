//! The log as its users see it: files, modes, names, torn lines, a second process.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use keymill_core::seam::audit::Line;
use tempfile::{TempDir, tempdir};

use super::*;

fn log(directory: &TempDir) -> FileAuditLog {
    open(Config::at(directory.path().join("audit"))).unwrap()
}

fn lines(log: &FileAuditLog, chain: &str) -> Vec<(Vec<u8>, bool)> {
    let mut lines = Vec::new();
    let mut take = |line: Line<'_>| {
        lines.push((line.bytes.to_vec(), line.torn));
        true
    };
    log.read(chain, &mut take).unwrap();
    lines
}

#[test]
fn lines_come_back_in_order_and_chains_by_name() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    let mut b = log.open_chain("b-1").unwrap();
    let mut a = log.open_chain("a-1").unwrap();
    b.append(b"one\ntwo\n").unwrap();
    a.append(b"other\n").unwrap();
    b.append(b"three\n").unwrap();
    b.syncer().unwrap().sync().unwrap();
    fs::write(directory.path().join("audit/notes.txt"), "not a chain").unwrap();
    assert_eq!(log.chains().unwrap(), ["a-1", "b-1"]);
    let whole = |text: &str| (text.as_bytes().to_vec(), false);
    assert_eq!(lines(&log, "b-1"), [whole("one"), whole("two"), whole("three")]);
    assert!(log.read("c-1", &mut |_| true).is_err());
}

#[test]
fn a_last_line_without_its_end_is_torn() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    log.open_chain("a").unwrap().append(b"one\ntw").unwrap();
    assert_eq!(lines(&log, "a"), [(b"one".to_vec(), false), (b"tw".to_vec(), true)]);
    log.open_chain("empty").unwrap();
    assert_eq!(lines(&log, "empty"), []);
}

#[test]
fn a_line_may_have_4_mib_and_not_one_byte_more() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    let mut sink = log.open_chain("a").unwrap();
    let mut longest = vec![b'x'; MAX_LINE_BYTES];
    longest.push(b'\n');
    sink.append(&longest).unwrap();
    assert_eq!(lines(&log, "a")[0].0.len(), MAX_LINE_BYTES);
    longest.insert(0, b'x');
    sink.append(&longest).unwrap();
    sink.append(b"after\n").unwrap();
    let read = lines(&log, "a");
    assert_eq!(read.len(), 2, "nothing is read behind it");
    assert_eq!(read[1].0.len(), MAX_LINE_BYTES + 1, "it comes cut, so that it does not verify");
}

#[test]
fn a_chain_is_created_once_and_never_through_a_link() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    let target = directory.path().join("target");
    fs::write(&target, "kept").unwrap();
    symlink(&target, directory.path().join("audit/link.jsonl")).unwrap();
    symlink("nowhere", directory.path().join("audit/dangling.jsonl")).unwrap();
    drop(log.open_chain("a").unwrap());
    for name in ["a", "link", "dangling"] {
        assert!(matches!(log.open_chain(name), Err(AuditError::Taken(_))), "{name}");
    }
    assert!(log.read("link", &mut |_| true).is_err(), "reading follows no link either");
    assert_eq!(fs::read(target).unwrap(), b"kept");
}

#[test]
fn a_chain_is_removed_for_good_and_by_its_writer_alone() {
    let directory = tempdir().unwrap();
    let (first, second) = (log(&directory), log(&directory));
    first.open_chain("a").unwrap().append(b"one\n").unwrap();
    assert_eq!(first.bytes("a").unwrap(), 4);
    assert!(matches!(second.remove("a"), Err(AuditError::Taken(_))), "it writes nothing there");
    first.remove("a").unwrap();
    assert_eq!(first.chains().unwrap(), [""; 0]);
    for gone in [first.remove("a"), first.bytes("a").map(drop), first.reader("a").map(drop)] {
        assert!(matches!(gone, Err(AuditError::Failed(_))), "{gone:?}");
    }
    for name in ["../audit", "a/b", ".reserve"] {
        assert!(first.remove(name).is_err() && first.bytes(name).is_err(), "{name}");
    }
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    for name in ["", "..", ".hidden", "../a", "a/b", "a\0", "a\nb", "é", &"x".repeat(129)] {
        assert!(matches!(log.open_chain(name), Err(AuditError::Failed(_))), "{name:?}");
        assert!(log.read(name, &mut |_| true).is_err(), "{name:?}");
    }
}

#[test]
fn directory_and_files_are_ours_alone() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    log.open_chain("a").unwrap();
    let mode = |path: &str| directory.path().join(path).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("audit"), mode("audit/a.jsonl"), mode("audit/.reserve")), (0o700, 0o600, 0o600));
}

#[test]
fn directories_above_are_made_too_and_ours_alone() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("data/keymill/audit");
    open(Config::at(&path)).unwrap();
    for made in path.ancestors().take(3) {
        assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("above/audit");
    drop(open(Config::at(&path)).unwrap());
    let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for (loose, mode) in [(&path, 0o770), (&path, 0o702), (&directory.path().join("above"), 0o707)] {
        chmod(loose, mode);
        assert!(matches!(open(Config::at(&path)), Err(OpenError::Loose(found)) if found == *loose));
        chmod(loose, 0o755);
    }
    assert!(open(Config::at(&path)).is_ok(), "others may look, since the files are 0600");
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    for other in [link, directory.path().join("file")] {
        assert!(matches!(open(Config::at(other)), Err(OpenError::NotADirectory(_))));
    }
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let directory = tempdir().unwrap();
    let (first, second) = (log(&directory), log(&directory));
    let mut chain = first.open_chain("a").unwrap();
    assert!(matches!(second.open_chain("b"), Err(AuditError::Taken(_))));
    chain.append(b"line\n").unwrap();
    assert_eq!(second.chains().unwrap(), ["a"]);
    assert_eq!(lines(&second, "a").len(), 1);
    drop((first, chain));
    assert!(second.open_chain("b").is_ok(), "the lock ends with its holder");
}

#[test]
fn a_log_that_is_closed_leaves_the_directory_to_others_and_is_read_on() {
    let directory = tempdir().unwrap();
    let (first, second) = (log(&directory), log(&directory));
    let mut chain = first.open_chain("a").unwrap();
    chain.append(b"line\n").unwrap();
    drop(chain);
    assert!(matches!(second.open_chain("b"), Err(AuditError::Taken(_))));
    first.close().unwrap();
    assert!(second.open_chain("b").is_ok());
    assert_eq!(lines(&first, "a").len(), 1);
}

#[test]
fn the_reserve_holds_real_blocks_until_it_is_given_up() {
    let directory = tempdir().unwrap();
    let log = log(&directory);
    let mut sink = log.open_chain("a").unwrap();
    let held = || directory.path().join("audit/.reserve").metadata().unwrap().blocks() * 512;
    assert!(held() >= DEFAULT_RESERVE_BYTES);
    sink.release_reserve();
    assert_eq!(held(), 0);
    assert!(sink.restore_reserve());
    assert!(held() >= DEFAULT_RESERVE_BYTES);
}
