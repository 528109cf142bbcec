//! What says who an application is and from where it may come: networks, rules of a policy, public keys in PEM. What is taken is given back as
//! it was, and reads again as the same.

use keymill_core::ErrorKind;
use keymill_core::access::{AccessControlRules, Network, NetworkRule, Sources};
use keymill_core::seam::provider::PublicKey;

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads the text as each of them.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(network) = within(room(text.len()), || text.parse::<Network>()) {
        let shown = network.to_string();
        assert_eq!(shown.parse::<Network>().as_ref(), Ok(&network));
        let name = "office".parse().expect("a name");
        let rule = NetworkRule::new(name, String::new(), &[shown]).expect("what is shown is a network");
        let sources = Sources::of(&rule);
        let address = text.split('/').next().unwrap_or_default();
        assert!(sources.has(address.parse().expect("a network begins with an address")));
    }
    match within(room(8 * text.len()), || AccessControlRules::parse(text)) {
        Ok(rules) => {
            assert_eq!(rules.as_text(), text);
            assert_eq!(AccessControlRules::parse(rules.as_text()).expect("it was taken before"), rules);
        }
        Err(error) => {
            tells(&error);
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        }
    }
    if let Some(key) = within(room(4 * text.len()), || PublicKey::from_pem(text)) {
        assert_eq!(PublicKey::from_pem(&key.to_pem()).expect("what was written").as_der(), key.as_der());
    }
}

/// Returns one of each kind, and near misses.
pub(crate) fn seeds() -> Vec<Seed> {
    let pem = PublicKey::from_der((0..91).collect()).to_pem();
    let texts = [
        ("v4", "10.0.0.0/8".to_owned()),
        ("v4-alone", "192.168.0.7".to_owned()),
        ("v6", "2001:db8::/32".to_owned()),
        ("mapped", "::ffff:10.0.0.0/104".to_owned()),
        ("all", "::/0".to_owned()),
        ("host-bits", "10.0.0.1/8".to_owned()),
        ("rules", r#"{"NetworkRules":["office","lab-2"]}"#.to_owned()),
        ("no-rules", "{}".to_owned()),
        ("list", "[]".to_owned()),
        ("pem", pem),
    ];
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}
