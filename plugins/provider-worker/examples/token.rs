//! Makes tokens for tests, and brings keys of known bytes into them. A program of its own, since a module reads from the environment
//! where its tokens are, and a test cannot change its own.
//!
//! `new MODULE LABEL PIN` makes a token; `bring MODULE LABEL PIN SPEC HEX` prints what a key of these bytes is wrapped.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use cryptoki_sys::{
    CKA_CLASS, CKA_EXTRACTABLE, CKA_KEY_TYPE, CKA_LABEL, CKA_TOKEN, CKA_VALUE, CKK_AES, CKK_GENERIC_SECRET,
    CKO_SECRET_KEY,
};
use keymill_core::Sensitive;
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_provider_pkcs11::module::Attribute;
use keymill_provider_pkcs11::{Config, DOMAIN_KEY_LABEL, Initialize, initialize, open};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["new", module, label, pin] => new(module, label, pin),
        ["bring", module, label, pin, spec, hex] => bring(module, label, pin, spec, hex),
        _ => Err("new MODULE LABEL PIN, or bring MODULE LABEL PIN SPEC HEX".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _told = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn new(module: &str, label: &str, pin: &str) -> Result<(), Box<dyn Error>> {
    initialize(Initialize {
        module: module.into(),
        token_label: label.into(),
        token_serial: None,
        domain: None,
        keys: true,
        so_pin: Some(Sensitive::copied(b"0815-officer")),
        pin: Sensitive::copied(pin.as_bytes()),
    })?;
    Ok(())
}

/// Wraps a key as the custody would: made in the token as an extractable object, wrapped, destroyed.
fn bring(module: &str, label: &str, pin: &str, spec: &str, hex: &str) -> Result<(), Box<dyn Error>> {
    let spec = KeySpec::ALL.into_iter().find(|known| known.name() == spec).ok_or("no such specification")?;
    let material = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
        .collect::<Result<Vec<_>, _>>()?;
    // Holds the login.
    let provider = open(Config::new(module, label, Sensitive::copied(pin.as_bytes())))?;
    let module = provider.module();
    let here = |slot: &_| module.token_info(*slot).is_ok_and(|info| info.label == label);
    let slot = module.slots()?.into_iter().find(here).ok_or("no such token")?;
    let session = module.open_session(slot, false)?;
    let domain = session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::bytes(CKA_LABEL, DOMAIN_KEY_LABEL.as_bytes()),
    ])?;
    let is_mac = spec.usages().contains(&KeyUsage::GenerateVerifyMac);
    let kind = if is_mac { CKK_GENERIC_SECRET } else { CKK_AES };
    let known = session.create_object(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, kind),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_EXTRACTABLE, true),
        Attribute::bytes(CKA_VALUE, &material),
    ])?;
    // The longest is a key of 64 bytes; wrapping adds up to 16.
    let mut wrapped = vec![0; 96];
    let domain = *domain.first().ok_or("no domain key")?;
    let bytes = session.wrap_key(provider.module_profile().wrap.mechanism(), domain, known, &mut wrapped)?;
    session.destroy_object(known)?;
    let hex: String = wrapped[..bytes].iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(io::stdout(), "{hex}")?;
    Ok(())
}
