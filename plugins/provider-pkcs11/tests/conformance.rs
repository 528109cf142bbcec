//! The suite for `CryptoProvider` on a real module, each behaviour on tokens of its own.

mod support;

use keymill_conformance::provider::Fixture;

fn fixture() -> Fixture {
    let (label, other) = (support::new_token(), support::new_token());
    let provider = support::open_token(&label);
    let profile = provider.module_profile().clone();
    Fixture::new(provider, support::open_token(&other), move |spec, material, bulk_mode| {
        support::bring(&label, &profile, spec, material, bulk_mode)
    })
}

keymill_conformance::provider_suite!(fixture);
