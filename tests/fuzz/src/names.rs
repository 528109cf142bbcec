//! Names, ids and times: a name that parses shows as it was written, and serde reads it as `parse` does.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use keymill_core::Timestamp;
use keymill_core::access::ResourcePattern;
use keymill_core::certificate::{AltName, NameConstraints, NamePattern, Serial};
use keymill_core::id::{
    AapName, AccessKeyId, AliasName, AuthorityName, CertificateId, ClientKeyId, CmkId, InstanceId, KeyRef,
    KeyVersionId, NetworkRuleName, PolicyName, ProfileName, RequestId, SecretName, SecretRef,
    SecretVersionId, VersionStage,
};
use keymill_core::seam::store;
use serde::de::DeserializeOwned;

use crate::memory::{room, within};
use crate::target::Seed;

/// Reads the text as every kind of name, and the first eight bytes as a time.
pub(crate) fn check(bytes: &[u8]) {
    if let Some(ms) = bytes.first_chunk() {
        shows_a_time(Timestamp::from_ms(u64::from_be_bytes(*ms)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    within(room(bytes.len()), || {
        shows(text, CmkId::parse(text));
        shows(text, KeyVersionId::parse(text));
        shows(text, RequestId::parse(text));
        shows(text, Timestamp::parse(text));
        shows(text, text.parse::<AliasName>().ok());
        shows(text, text.parse::<AccessKeyId>().ok());
        shows(text, text.parse::<InstanceId>().ok());
        shows(text, text.parse::<ClientKeyId>().ok());
        shows(text, text.parse::<AapName>().ok());
        shows(text, text.parse::<PolicyName>().ok());
        shows(text, text.parse::<NetworkRuleName>().ok());
        shows(text, text.parse::<SecretName>().ok());
        shows(text, text.parse::<SecretVersionId>().ok());
        shows(text, text.parse::<VersionStage>().ok());
        shows(text, text.parse::<ResourcePattern>().ok());
        shows(text, CertificateId::parse(text));
        shows(text, text.parse::<AuthorityName>().ok());
        shows(text, text.parse::<ProfileName>().ok());
        means_the_same(text, text.parse::<Serial>().ok());
        means_the_same(text, text.parse::<NamePattern>().ok());
        certifies(text);
        let secret = text.parse::<SecretRef>().ok();
        assert_eq!(from_json::<SecretRef>(text), secret);
        assert!(secret.is_none_or(|SecretRef(name)| text.ends_with(name.as_str())));
    });
    if let Ok(path) = store::Path::new(text) {
        assert_eq!(path.as_str(), text);
    }
    let key = KeyRef::parse(text);
    assert_eq!(from_json::<KeyRef>(text).as_ref(), Some(&key));
    let shown = match &key {
        KeyRef::Id(id) => id.to_string(),
        KeyRef::Alias(alias) => alias.to_string(),
        KeyRef::Unknown => return,
    };
    assert_eq!(KeyRef::parse(&shown), key);
    assert!(text.ends_with(&shown), "{text} is no ARN of {shown}");
}

fn shows<T: Display + Debug + PartialEq + DeserializeOwned>(text: &str, parsed: Option<T>) {
    if let Some(parsed) = &parsed {
        assert_eq!(parsed.to_string(), text);
    }
    assert_eq!(from_json(text), parsed);
}

/// What may be written in more ways than one is shown in one, which reads alike.
fn means_the_same<T: Display + Debug + PartialEq + FromStr + DeserializeOwned>(
    text: &str,
    parsed: Option<T>,
) {
    if let Some(parsed) = &parsed {
        let shown = parsed.to_string();
        assert_eq!(shown.parse::<T>().ok().as_ref(), Some(parsed));
        assert_eq!(shown.parse::<T>().ok().map(|again| again.to_string()), Some(shown));
    }
    assert_eq!(from_json(text), parsed);
}

/// Two lines: a pattern, or a domain, and a name. A pattern that covers a name below a domain covers none that a constraint to that domain refuses.
fn certifies(text: &str) {
    let Some((pattern, name)) = text.split_once('\n') else { return };
    let Ok(name) = name.parse::<AltName>() else { return };
    let Ok(read) = pattern.parse::<NamePattern>() else { return };
    let domain = pattern.trim_start_matches(['*', '.']).to_owned();
    let constraints = NameConstraints::read(&[domain], &[], &[], &[]);
    if let (AltName::Dns(_), Ok(constraints), true) = (&name, constraints, read.covers(&name)) {
        constraints.check(&name).expect("it is below the domain of the pattern");
    }
}

fn from_json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(text.into()).ok()
}

fn shows_a_time(time: Timestamp) {
    let text = time.to_string();
    // Past the year 9999 there is no form to read again.
    assert_eq!(Timestamp::parse(&text).map(Timestamp::as_s), (text.len() == 20).then_some(time.as_s()));
    assert!(time.plus(Duration::MAX) >= time);
}

/// Returns one of each.
pub(crate) fn seeds() -> Vec<Seed> {
    [
        ("id", "00000000-0000-4000-8000-00000000000f"),
        ("alias", "alias/people/of-1_a"),
        ("arn", "acs:kms:cn-hangzhou:1:key/00000000-0000-4000-8000-00000000000f"),
        ("arn-alias", "acs:kms:r:1:alias/a"),
        ("arn-secret", "acs:kms:r:1:secret/db/orders+1=x.y@z"),
        ("access-key", "AK.12345678"),
        ("time", "2024-02-29T23:59:59Z"),
        ("resource", "key/00000000-0000-4000-8000-00000000000f"),
        ("path", "access-key/kAK.1"),
        ("serial", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
        ("pattern", "URI:spiffe://orders.example/*"),
        ("certified", "**.orders.example\n*.a.orders.example"),
        ("network", "10.0.0.0/8\nIP:10.0.0.1"),
    ]
    .map(|(name, text)| (name, text.as_bytes().to_vec()))
    .into()
}
