//! Payloads of records: they were sealed here, so this guards against our own older versions more than against strangers. What
//! is read is written again to something that is read alike.

use keymill_core::Sensitive;
use keymill_core::access::AccessKey;
use keymill_core::key::{Cmk, KeyVersionMaterial};
use keymill_crypto::audit::ChainHead;
use keymill_crypto::payload::{decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::memory::{room, within};
use crate::target::Seed;

/// Nobody has counted the items of a list, so serde makes room for up to 1 MiB of them; two lists can stand in each other.
const UNCOUNTED: usize = 2 * 1024 * 1024;

/// Reads the input as each kind of record.
pub(crate) fn check(bytes: &[u8]) {
    let payload = Sensitive::copied(bytes);
    comes_back::<Cmk>(&payload);
    comes_back::<KeyVersionMaterial>(&payload);
    comes_back::<AccessKey>(&payload);
    comes_back::<ChainHead>(&payload);
}

fn comes_back<T: Serialize + DeserializeOwned>(payload: &Sensitive) {
    let Ok(record) = within(UNCOUNTED + room(payload.len()), || decode::<T>(payload)) else { return };
    let written = encode(&record).expect("it was read here");
    let again: T = decode(&written).expect("it was written here");
    assert_eq!(encode(&again).expect("it was read here").expose(), written.expose());
}

/// Returns one record of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        ("cmk", written::<Cmk>(CMK)),
        ("material", written::<KeyVersionMaterial>(MATERIAL)),
        ("access-key", written::<AccessKey>(ACCESS_KEY)),
        ("head", written::<ChainHead>(HEAD)),
    ]
}

fn written<T: Serialize + DeserializeOwned>(json: &str) -> Vec<u8> {
    let record: T = serde_json::from_str(json).expect("the seed is a record");
    encode(&record).expect("the seed is a record").expose().to_vec()
}

const CMK: &str = r#"{"id":"00000000-0000-4000-8000-000000000001","spec":"Aliyun_AES_256","usage":"ENCRYPT/DECRYPT",
    "origin":"Aliyun_KMS","protection":"SOFTWARE","bulk_mode":null,"state":"Enabled","description":"d",
    "creator":"AK.12345678","created_at":"2026-11-24T12:00:17Z","delete_at":null,"versions":[{"number":1,
    "id":"00000000-0000-4000-8000-000000000002","created_at":"2026-11-24T12:00:17Z"}]}"#;
const MATERIAL: &str = r#"{"id":"00000000-0000-4000-8000-000000000002",
    "key":{"spec":"Aliyun_AES_256","bulk_mode":null,"material":[0,"AQID"]}}"#;
const ACCESS_KEY: &str = r#"{"id":"AK.12345678","secret":"AQID","description":"d","status":"Active",
    "grants":[{"Effect":"Deny","Role":"Auditor","Resources":["*","key/*"]}],"created_at":"2026-11-24T12:00:17Z"}"#;
const HEAD: &str =
    r#"{"chain":"20261124T053017Z-a3f91c02-03","sequence":7,"mac":"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"}"#;
