//! What the keyring tells of its keys, and when an entry is still in force.

use keymill_core::id::KeyVersionId;
use keymill_core::key::{
    Fallback, KeySpec, KeyUsage, KeyVersion, KeyVersions, Origin, ProtectionLevel, Tags,
};

use keymill_core::seam::store::Revision;

use super::*;

const NOON: Timestamp = Timestamp::from_ms(1_795_521_617_000);
const STAMP: Stamp = Stamp { revision: Revision(1), sequence: 1 };

fn cmk(n: u8) -> Cmk {
    let id = KeyVersionId::from_bytes([n; 16]);
    Cmk {
        id: CmkId::from_bytes([n; 16]),
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        origin: Origin::AliyunKms,
        protection: ProtectionLevel::Software,
        bulk_mode: None,
        fallback: Fallback::Never,
        token_serial: None,
        state: KeyState::Enabled,
        description: Box::default(),
        creator: "tester-01".parse().unwrap(),
        created_at: NOON,
        delete_at: None,
        rotation: None,
        deletion_protection: None,
        policy: None,
        tags: Tags::new(),
        certificate: None,
        external: None,
        versions: KeyVersions::from([KeyVersion { number: 1, id, created_at: NOON }]),
    }
}

fn entry(n: u8) -> Arc<CmkEntry> {
    let cmk = cmk(n);
    let version = VersionEntry::new(1, cmk.versions[0].id, Some([n; 16]));
    Arc::new(CmkEntry::first(cmk, [Arc::new(version)].into_iter().collect(), STAMP))
}

fn next(of: &CmkEntry, cmk: Cmk, generation: u64) -> Arc<CmkEntry> {
    Arc::new(of.next(cmk, of.versions.clone(), STAMP, generation))
}

fn ids(entries: Vec<Arc<CmkEntry>>) -> Vec<u8> {
    entries.iter().map(|entry| entry.cmk.id.as_bytes()[0]).collect()
}

/// Of 600 bytes a CMK that is not in use; beside these go its description, its places in the tables, and what the allocator takes.
#[test]
fn a_key_that_is_not_in_use_is_small() {
    let (entry, version) = (size_of::<CmkEntry>(), size_of::<VersionEntry>());
    assert!(entry <= 288 && version <= 64, "{entry} and {version} bytes");
}

#[test]
fn an_entry_is_in_force_until_one_of_another_generation_is_published_however_many_lie_between() {
    let keyring = Keyring::default();
    let first = entry(1);
    keyring.publish(first.clone());
    assert!(first.is_current());
    let described = next(&first, Cmk { description: "x".into(), ..first.cmk.clone() }, 1);
    assert!(first.is_current(), "the next one is not published yet");
    keyring.publish(described.clone());
    assert!(first.is_current() && described.is_current());
    let disabled = next(&described, Cmk { state: KeyState::Disabled, ..described.cmk.clone() }, 2);
    keyring.publish(disabled.clone());
    assert_eq!([&first, &described, &disabled].map(|entry| entry.is_current()), [false, false, true]);
    keyring.remove(&first.cmk.id);
    assert!(!disabled.is_current());
    let alone = entry(2);
    keyring.publish(alone.clone());
    keyring.remove(&alone.cmk.id);
    assert!(!alone.is_current(), "also where it is the only one that there was");
    assert!(keyring.is_empty());
}

#[test]
fn keys_that_the_clock_is_about_are_known_and_no_others() {
    let keyring = Keyring::default();
    let (still, doomed) = (entry(1), entry(2));
    keyring.publish(still);
    keyring.publish(doomed.clone());
    assert!(keyring.timed().is_empty());
    let pending = next(&doomed, Cmk { state: KeyState::PendingDeletion, ..doomed.cmk.clone() }, 2);
    keyring.publish(pending.clone());
    assert_eq!(ids(keyring.timed()), [2]);
    keyring.publish(next(&pending, doomed.cmk.clone(), 3));
    assert!(keyring.timed().is_empty(), "it was called off");
    keyring.publish(pending.clone());
    keyring.remove(&pending.cmk.id);
    assert!(keyring.timed().is_empty());
}

#[test]
fn used_keys_are_told_once_and_again_when_they_are_used_again() {
    let keyring = Keyring::default();
    let [a, b] = [entry(1), entry(2)];
    [&a, &b].into_iter().for_each(|entry| keyring.publish(entry.clone()));
    let count = |of: &CmkEntry, items| keyring.count(&of.cmk.id, of.primary(), Use::Encrypted, items, NOON);
    count(&a, 0);
    assert!(keyring.take_used().is_empty() && a.primary().if_used().is_none(), "nothing was done");
    (0..3).for_each(|_| count(&a, 2));
    assert_eq!(ids(keyring.take_used()), [1]);
    assert!(keyring.take_used().is_empty());
    assert_eq!(a.primary().uses(), Uses { encrypted: 6, decrypted: 0, last_ms: NOON.as_ms() });
    count(&b, 1);
    count(&a, 1);
    let mut told = ids(keyring.take_used());
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    // Counts go on under a version whose material comes again, for who still holds the one before, too.
    let again = a.primary().resealed(None);
    count(&a, 1);
    assert_eq!((again.uses().encrypted, again.material), (8, None));
}

#[test]
fn a_page_leaves_out_what_is_hidden_and_counts_the_rest() {
    let keyring = Keyring::default();
    (1..=9).for_each(|n| keyring.add(entry(n)));
    keyring.order();
    let id = |n: u8| CmkId::from_bytes([n; 16]);
    let page = |hidden: &[u8], skip, most| {
        let hidden: Vec<_> = hidden.iter().copied().map(id).collect();
        let (ids, total) = keyring.page_without(&hidden, skip, most);
        (ids.iter().map(|id| id.as_bytes()[0]).collect::<Vec<_>>(), total)
    };
    assert_eq!(page(&[], 3, 2), (vec![4, 5], 9));
    assert_eq!(page(&[9, 2, 77, 4], 2, 3), (vec![5, 6, 7], 6), "who is not there hides nothing");
    assert_eq!(keyring.in_order(&[id(8), id(77), id(3)]), [id(3), id(8)]);
}
