//! The check against instances that were used, stopped and then tampered with.

use super::*;
use crate::admin::{Api, ask};
use crate::config::Places;
use crate::credentials::Target;
use crate::instance::{Instance, Started, Taken};
use keymill_client::Credentials;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{CreateAliasRequest, CreateKeyRequest};
use keymill_core::seam::store::{Page, Path as StorePath, Write};
use keymill_core::{Sensitive, Timestamp};
use keymill_crypto::audit::{ChainHead, ChainWriter, Opening};

#[test]
fn a_public_key_is_64_digits() {
    assert_eq!("00".repeat(32).parse(), Ok(PublicKey([0; 32])));
    assert_eq!("fF".repeat(32).parse(), Ok(PublicKey([0xff; 32])));
    for wrong in ["", "00", &"0g".repeat(32), &"é".repeat(32), &"00".repeat(33), &"+1".repeat(32)] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
}

/// Makes an instance that has been used: an access key, a key and its alias. It is stopped, and its places are free.
fn used() -> (tempfile::TempDir, Config, Places) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: Some(directory.path().join("data")), ..Config::default() };
    config.msgpack.address.set_port(0);
    let places = config.places().unwrap();
    let taken = Taken::take(&config, &places).unwrap();
    let Started { mut instance, bootstrap, .. } =
        Instance::start(&config, &places, taken, &mut |_| Ok(())).unwrap();
    let listener = keymill_msgpack::bind(config.msgpack().unwrap()).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    instance.run(listener, drop).unwrap();
    let bootstrap = bootstrap.unwrap();
    let secret = String::from_utf8(bootstrap.secret.expose().to_vec()).unwrap();
    let target = Target::of(&address, Credentials::new(bootstrap.id, secret));
    let api = Api::to(target, false).unwrap();
    let request = CreateKeyRequest::default();
    let id = ask_id(&api, request).unwrap();
    let alias_name = "alias/people".parse().unwrap();
    api.call(CreateAliasRequest { alias_name, key_id: KeyRef::Id(id), timeout_ms: None }).unwrap();
    drop(api);
    instance.stop();
    (directory, config, places)
}

fn ask_id(api: &Api, request: CreateKeyRequest) -> Result<CmkId> {
    Ok(ask!(api, CreateKey, request).key_metadata.key_id)
}

fn examined(config: &Config, places: &Places) -> Findings {
    let derived = derive(config, &places.root, None).unwrap();
    let trust = Trust::Keys(Box::new(ChainKeys::new(&derived.audit, &derived.audit_signing).unwrap()));
    let storage = Storage::open(config, &places.data, &derived, None).unwrap();
    examine(&*existing_audit(config, &places.audit).unwrap(), &trust, Some(&storage)).unwrap()
}

/// Examines the log alone.
fn examined_alone(config: &Config, places: &Places) -> Findings {
    let derived = derive(config, &places.root, None).unwrap();
    let trust = Trust::Keys(Box::new(ChainKeys::new(&derived.audit, &derived.audit_signing).unwrap()));
    examine(&*existing_audit(config, &places.audit).unwrap(), &trust, None).unwrap()
}

/// Starts and stops, and does nothing in between.
fn start_and_stop(config: &Config, places: &Places) {
    let taken = Taken::take(config, places).unwrap();
    let Started { mut instance, .. } = Instance::start(config, places, taken, &mut |_| Ok(())).unwrap();
    instance.run(keymill_msgpack::bind(config.msgpack().unwrap()).unwrap(), drop).unwrap();
    instance.stop();
}

fn change(config: &Config, places: &Places, prefix: &str, to: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    let store = plugins::store(&config.store, &places.data).unwrap();
    let page = Page { after: None, limit: 1 };
    let entry = store.list(&StorePath::new(prefix).unwrap(), page).unwrap().remove(0);
    let write = Write { path: entry.path, expected: Some(entry.revision), value: to(entry.value) };
    store.commit(&[write]).unwrap();
}

fn filter(flags: &str) -> super::filter::Filter {
    use clap::{Args, FromArgMatches};
    let command = super::filter::Filter::augment_args(clap::Command::new("filter").no_binary_name(true));
    let matches = command.try_get_matches_from(flags.split_whitespace()).unwrap();
    super::filter::Filter::from_arg_matches(&matches).unwrap()
}

#[test]
fn requests_are_found_by_who_what_which_key_from_where_when_and_how_they_ended() {
    let (_directory, config, places) = used();
    let keys = chain_keys(&derive(&config, &places.root, None).unwrap()).unwrap();
    let log = existing_audit(&config, &places.audit).unwrap();
    let found = |flags: &str| {
        let mut rows = Vec::new();
        let mut show = |row: &super::entry::Row<'_>| {
            let key = row.keys.first().map(|touch| touch.cmk.to_string());
            let ids = [row.request, row.principal.unwrap_or("-")].map(str::to_owned);
            rows.push((row.operation.to_owned(), ids, key, row.providers.to_vec(), row.verified));
            Ok(())
        };
        let (count, verdict) =
            super::search::each_request(&*log, Some(&keys), &filter(flags), &mut show).unwrap();
        assert!(verdict.is_good() && count as usize == rows.len(), "{}", verdict.text());
        rows
    };
    let made = found("--operation CreateKey");
    let [(_, [request, principal], Some(key), providers, true)] = &made[..] else { panic!("{made:?}") };
    assert_eq!(*providers, ["software"]);
    let operations = |flags: &str| found(flags).into_iter().map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(operations(&format!("--key {key}")), ["CreateKey", "CreateAlias"]);
    assert_eq!(operations(&format!("--request {request}")), ["CreateKey"]);
    let of_both =
        operations(&format!("--principal {principal} --operation CreateKey --operation CreateAlias"));
    assert_eq!(of_both, ["CreateKey", "CreateAlias"]);
    assert_eq!(
        operations("--operation CreateAlias --source 127.0.0.0/8 --frontend msgpack --outcome ok --since 1h")
            .len(),
        1
    );
    for nothing in
        ["--until 1h", "--source 10.0.0.0/8", "--frontend http", "--outcome failed", "--principal nobody"]
    {
        assert_eq!(operations(nothing), [""; 0], "{nothing}");
    }
}

#[test]
fn an_export_has_every_request_and_note_in_a_private_file_that_is_new() {
    use super::export::{COLUMNS, Format, create, export};
    use std::os::unix::fs::MetadataExt;
    let (directory, config, places) = used();
    let keys = chain_keys(&derive(&config, &places.root, None).unwrap()).unwrap();
    let log = existing_audit(&config, &places.audit).unwrap();
    let exported = |format, flags: &str| {
        let mut out = Vec::new();
        let (count, verdict) =
            export(&*log, Some(&keys), &filter(flags), format, &mut out, &Failure::of_output).unwrap();
        assert!(verdict.is_good());
        (count, String::from_utf8(out).unwrap())
    };
    let (count, text) = exported(Format::Json, "");
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() as u64 == count && count >= 3, "{text}");
    assert!(rows.iter().all(|row| row["verified"] == true && row.get("mac").is_none()));
    assert!(rows.is_sorted_by_key(|row| row["time"].as_str().unwrap().to_owned()));
    let (same, text) = exported(Format::Csv, "");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
    let operations: Vec<String> = reader.records().map(|row| row.unwrap()[9].to_owned()).collect();
    assert_eq!(operations.len() as u64, same);
    let told = |row: &serde_json::Value| row["operation"].as_str().unwrap_or("").to_owned();
    assert_eq!((same, operations), (count, rows.iter().map(told).collect::<Vec<_>>()));
    assert_eq!(exported(Format::Csv, "--operation CreateKey").0, 1);

    let path = directory.path().join("export.json");
    assert_eq!(create(&path).unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    for there in [&path, &link] {
        assert!(create(there).unwrap_err().to_string().contains("exists already"), "{}", there.display());
    }
}

#[test]
fn a_store_as_it_was_left_is_good() {
    let (_directory, config, places) = used();
    let found = examined(&config, &places);
    assert!(found.good && found.chains.iter().all(|chain| chain.closed), "{}", found.summary());
    assert!(found.records.unwrap() >= 5 && found.record_findings.is_empty());
}

#[test]
fn records_that_were_altered_or_taken_away_are_named() {
    let (_directory, config, places) = used();
    change(&config, &places, "cmk/", |mut value| {
        value[40] ^= 1;
        Some(value)
    });
    change(&config, &places, "alias/", |_| None);
    let found = examined(&config, &places);
    let wrong: Vec<_> = found.record_findings.iter().map(|row| (row.wrong, &*row.path)).collect();
    assert!(!found.good && wrong.len() == 2, "{wrong:?}");
    assert_eq!(wrong[0], (true, "alias/npeople"));
    assert!(wrong[1].0 && wrong[1].1.starts_with("cmk/"), "{wrong:?}");
}

#[test]
fn a_chain_that_is_gone_and_one_that_is_cut_are_told() {
    let (_directory, config, places) = used();
    let mut files: Vec<_> =
        std::fs::read_dir(&places.audit).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let management = files.remove(0);
    let text = std::fs::read_to_string(&management).unwrap();
    let lines: Vec<_> = text.lines().collect();
    std::fs::write(&management, lines[..lines.len() - 2].join("\n") + "\n").unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    let found = examined(&config, &places);
    assert_eq!(found.missing.len(), 1);
    assert!(
        found.chains[0].bad.as_deref().is_some_and(|why| why.contains("cut off")),
        "{:?}",
        found.chains[0].bad
    );
}

#[test]
fn after_many_starts_each_chain_of_any_age_is_missed_or_found_cut_by_name() {
    let (_directory, config, places) = used();
    for _ in 0..3 {
        start_and_stop(&config, &places);
    }
    let before: Vec<_> = examined(&config, &places).chains.into_iter().map(|row| row.chain).collect();
    start_and_stop(&config, &places);
    let found = examined(&config, &places);
    assert!(found.good && found.record_findings.is_empty(), "{}", found.summary());
    let chains: Vec<_> = found.chains.into_iter().map(|row| row.chain).collect();
    assert!(before.len() >= 8, "{before:?}");
    for chain in &chains {
        // The chains of the last process are remembered by the store alone.
        let looks = [(true, examined as fn(&_, &_) -> Findings), (before.contains(chain), examined_alone)];
        let looks = || looks.iter().filter(|(is_remembered, _)| *is_remembered).map(|(_, look)| look);
        let file = places.audit.join(format!("{chain}.jsonl"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        for look in looks() {
            let found = look(&config, &places);
            assert!(!found.good && found.missing == [chain.clone()], "{chain}: {:?}", found.missing);
        }
        let cut = text.trim_end().rfind('\n').unwrap();
        std::fs::write(&file, &text[..=cut]).unwrap();
        for look in looks() {
            let found = look(&config, &places);
            let bad: Vec<_> = found.chains.iter().filter(|row| !row.good).map(|row| &row.chain).collect();
            assert!(bad == [chain] && found.missing.is_empty(), "{chain}: {bad:?}");
        }
        std::fs::write(&file, text).unwrap();
    }
}

#[test]
fn a_clock_set_back_hides_no_cut_or_missing_chain() {
    let directory = tempfile::tempdir().unwrap();
    let log = plugins::audit(&Config::default().audit, &directory.path().join("audit")).unwrap();
    let keys = ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap();
    let write = |name: &str, lines: u32, previous: &[ChainHead]| {
        let mut out = Vec::new();
        let opening = Opening { time: Timestamp::from_ms(0), node: "n", software: "0", previous };
        let mut writer = ChainWriter::new(&keys, name, &opening, &mut out).unwrap();
        for _ in 1..lines {
            writer.checkpoint(Timestamp::from_ms(0), &mut out);
        }
        log.open_chain(name).unwrap().append(&out).unwrap();
        writer.head()
    };
    // The names of each are later than those of the chain that names it.
    let gone = ChainHead { chain: "9-001-data".into(), sequence: 1, mac: [0; 16] };
    let first = ChainHead { sequence: 5, ..write("9-000-management", 4, &[gone]) };
    let second = write("5-000-management", 3, &[first]);
    write("1-000-management", 2, &[second]);
    let found = examine(&*log, &Trust::Keys(Box::new(keys.clone())), None).unwrap();
    let bad: Vec<_> = found.chains.iter().filter(|row| !row.good).collect();
    assert!(bad.len() == 1 && bad[0].chain == "9-000-management", "{bad:?}", bad = bad.len());
    assert!(bad[0].bad.as_deref().is_some_and(|why| why.contains("cut off")));
    assert_eq!(found.missing, ["9-001-data"]);
}
