//! The suite for `CryptoProvider`, over workers that serve the software provider.

mod support;

use keymill_conformance::provider::Fixture;
use keymill_core::Sensitive;
use keymill_core::seam::provider::{KeyMaterial, StoredKey};

fn fixture() -> Fixture {
    Fixture::new(support::software(), support::software(), |spec, material, bulk_mode| StoredKey {
        spec,
        usage: spec.usages()[0],
        bulk_mode,
        material: KeyMaterial::Clear(Sensitive::copied(material)),
        public_key: None,
    })
}

keymill_conformance::provider_suite!(fixture);
