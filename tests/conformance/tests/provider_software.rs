//! The suite for `CryptoProvider` on the software provider.

use keymill_conformance::provider::Fixture;
use keymill_core::Sensitive;
use keymill_core::seam::provider::{KeyMaterial, StoredKey};
use keymill_provider_software::{Config, open as open_provider};

fn fixture() -> Fixture {
    let provider = || open_provider(Config {}).expect("the provider opens");
    Fixture::new(provider(), provider(), |spec, material, bulk_mode| StoredKey {
        spec,
        usage: spec.usages()[0],
        bulk_mode,
        material: KeyMaterial::Clear(Sensitive::copied(material)),
        public_key: None,
    })
    .with_public_halves()
}

keymill_conformance::provider_suite!(fixture);
