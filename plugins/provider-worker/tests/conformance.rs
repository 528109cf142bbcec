//! The suite for `CryptoProvider`, over workers that serve the software provider.

mod support;

use keymill_conformance::provider::Fixture;
use keymill_core::Sensitive;
use keymill_core::key::KeySpec;
use keymill_core::seam::provider::{KeyMaterial, StoredKey};

fn fixture() -> Fixture {
    Fixture::new(support::software(), support::software(), |material, bulk_mode| StoredKey {
        spec: KeySpec::Aes256,
        bulk_mode,
        material: KeyMaterial::Clear(Sensitive::copied(material)),
    })
}

keymill_conformance::provider_suite!(fixture);
