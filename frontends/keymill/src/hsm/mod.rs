//! `keymill hsm`: what an operator does with tokens. Most commands drive the plugin itself, in this process, before keymill uses a token:
//! find it, make it ready, examine it. `adopt`, `status`, `drain` and `enable` ask a running server.

mod adopt;
mod bench;
mod ceremony;
mod change_pin;
mod deadline;
mod doctor;
mod init;
pub(crate) mod pin;
mod pool;
mod prompt;
mod slots;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use keymill_core::id::DomainName;

use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::{Module, TokenInfo, number::CK_SLOT_ID};
use crate::plugins::pkcs11::{DOMAIN_KEY_LABEL, OpenError, OpenErrorKind};

/// Bytes of a token's label.
const LABEL_BYTES: usize = 32;

/// Find, prepare and examine tokens of a PKCS#11 module
///
/// `adopt`, `status`, `drain` and `enable` ask a running server; the others load the module themselves, and need none. PINs come from a file of mode 0600, the environment or a prompt, never from the command line, where other users could see them.
#[derive(Args, Clone, Debug)]
pub(crate) struct HsmArgs {
    #[command(subcommand)]
    command: HsmCommand,
    /// Seconds until a command whose module does not answer is ended; waiting for what you type does not count
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Subcommand, Clone, Debug)]
enum HsmCommand {
    Slots(slots::SlotsArgs),
    Init(init::InitArgs),
    Ceremony(Box<ceremony::CeremonyArgs>),
    Doctor(doctor::DoctorArgs),
    Adopt(adopt::AdoptArgs),
    Status(pool::StatusArgs),
    Drain(pool::DrainArgs),
    Enable(pool::EnableArgs),
    ChangePin(change_pin::ChangePinArgs),
    Bench(bench::BenchArgs),
}

/// The flag that names a module.
#[derive(Args, Clone, Debug)]
struct ModuleArgs {
    /// The vendor's PKCS#11 library
    #[arg(long, value_name = "PATH")]
    module: PathBuf,
}

/// The flags that name a token.
#[derive(Args, Clone, Debug)]
struct TokenArgs {
    #[command(flatten)]
    module: ModuleArgs,
    /// The token's label; slots are numbered anew at whim
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    token: String,
    /// Its serial number, where two tokens have one label
    #[arg(long, value_name = "NUMBER")]
    serial: Option<String>,
}

/// The flag that names a domain.
#[derive(Args, Clone, Debug, Default)]
struct DomainArgs {
    /// The domain that it is about, such as that of a tenant: a token can hold several, each by keys of its own [default: that without a name]
    #[arg(long, value_name = "NAME")]
    domain: Option<DomainName>,
}

impl DomainArgs {
    fn name(&self) -> Option<String> {
        self.domain.as_ref().map(DomainName::to_string)
    }
}

impl TokenArgs {
    /// Finds the token, if it is there; two that fit are refused.
    fn find(&self, module: &Module) -> Result<Option<(CK_SLOT_ID, TokenInfo)>> {
        find(module, &self.token, self.serial.as_deref())
    }

    /// Finds the token, and sees that its PIN may be tried.
    fn present(&self, module: &Module) -> Result<TokenInfo> {
        let Some((_, info)) = self.find(module)? else { return Err(self.absent()) };
        check_pin_state(&info)?;
        Ok(info)
    }

    /// Makes the failure of a token that is not there.
    fn absent(&self) -> Failure {
        let serial =
            self.serial.as_ref().map(|serial| format!(" with serial number {serial}")).unwrap_or_default();
        Failure::wrong_use(format!("there is no token {}{serial}", self.token)).next(format!(
            "`keymill hsm slots --module {}` shows the tokens there are",
            self.module.module.display()
        ))
    }
}

/// Does what the command says.
pub(crate) fn run(args: HsmArgs) -> Result<()> {
    let measures = match &args.command {
        HsmCommand::Bench(args) => args.measures(),
        _ => Duration::ZERO,
    };
    deadline::start(Duration::from_secs(args.timeout) + measures);
    match args.command {
        HsmCommand::Slots(args) => slots::run(&args),
        HsmCommand::Init(args) => init::run(args),
        HsmCommand::Ceremony(args) => ceremony::run(*args),
        HsmCommand::Doctor(args) => doctor::run(args),
        HsmCommand::Adopt(args) => adopt::run(args),
        HsmCommand::Status(args) => pool::status(&args),
        HsmCommand::Drain(args) => pool::drain(args),
        HsmCommand::Enable(args) => pool::enable(args),
        HsmCommand::ChangePin(args) => change_pin::run(args),
        HsmCommand::Bench(args) => bench::run(args),
    }
}

fn parse_label(text: &str) -> Result<String, String> {
    match text.len() {
        1..=LABEL_BYTES if !text.ends_with(' ') => Ok(text.to_owned()),
        // PKCS#11 fills labels up with blanks.
        1..=LABEL_BYTES => Err("a token's label cannot end in a blank".to_owned()),
        _ => Err(format!("a token's label has 1 to {LABEL_BYTES} bytes")),
    }
}

/// Loads a module and initialises it.
fn load(path: &Path) -> Result<Module> {
    let module = Module::load(path).map_err(|error| {
        Failure::wrong_use(error.to_string())
            .next("name the library that the HSM's vendor delivers for PKCS#11, such as libsofthsm2.so")
    })?;
    module.initialize().map_err(|failure| {
        Failure::new(format!("{}: {failure}", path.display())).next(
            "check the module's own configuration (SoftHSM finds it by SOFTHSM2_CONF), and that its files may be read by you",
        )
    })?;
    Ok(module)
}

/// Lists the slots that hold a token, each with what its token says of itself.
fn tokens(module: &Module) -> Result<Vec<(CK_SLOT_ID, Result<TokenInfo>)>> {
    let slots = module.slots().map_err(Failure::because("the slots"))?;
    let info = |slot| module.token_info(slot).map_err(|failure| Failure::new(failure.to_string()));
    Ok(slots.into_iter().map(|slot| (slot, info(slot))).collect())
}

/// Finds the token of a label, and of a serial number where one is said; two that fit are refused.
fn find(module: &Module, label: &str, serial: Option<&str>) -> Result<Option<(CK_SLOT_ID, TokenInfo)>> {
    let readable = tokens(module)?.into_iter().filter_map(|(slot, info)| Some((slot, info.ok()?)));
    let fits = |info: &TokenInfo| {
        info.initialized && info.label == label && serial.is_none_or(|serial| info.serial == serial)
    };
    let mut found = readable.filter(|(_, info)| fits(info));
    let first = found.next();
    match found.next() {
        None => Ok(first),
        Some(_) => Err(Failure::wrong_use(format!("two tokens have the label {label}"))
            .next("say which with --serial; `keymill hsm slots` shows serial numbers")),
    }
}

/// Refuses a token whose PIN should not be tried now: a wrong one could lock it.
fn check_pin_state(info: &TokenInfo) -> Result<()> {
    let label = &info.label;
    let by_officer =
        "have its security officer set the PIN, with the vendor's tool (such as pkcs11-tool --init-pin)";
    if !info.pin_set {
        return Err(Failure::new(format!("token {label} has no PIN yet")).next(by_officer));
    }
    if info.pin_locked {
        return Err(Failure::new(format!("the PIN of token {label} is locked")).next(by_officer));
    }
    if info.pin_final_try {
        return Err(Failure::new(format!("one more wrong PIN locks token {label}, so none is tried")).next(
            "log in once with the right PIN by the vendor's tool, which resets the count, or have the security officer set it",
        ));
    }
    Ok(())
}

/// Makes the failure of a token that the plugin refuses, with what to do next.
fn refused(error: OpenError) -> Failure {
    let message = error.to_string();
    let next = match error.kind() {
        OpenErrorKind::Module => {
            "name the library that the HSM's vendor delivers for PKCS#11, and check that its own configuration is found"
        }
        OpenErrorKind::NoSuchToken => "`keymill hsm slots` shows the tokens there are",
        OpenErrorKind::NotInitialized => {
            "`keymill hsm init` makes its keys, and leaves all else on the token as it is"
        }
        OpenErrorKind::Occupied => {
            "the token is in use by keymill: `keymill hsm doctor` examines it, and nothing makes it anew"
        }
        OpenErrorKind::Unfinished => {
            "`keymill hsm ceremony clean` tells what was left on the token, and destroys it; then hold the ceremony again"
        }
        OpenErrorKind::Input => "check what was given",
        OpenErrorKind::Pin | OpenErrorKind::Lacking | OpenErrorKind::Other => match next_after(&message) {
            Some(next) => next,
            None if error.kind() == OpenErrorKind::Lacking => {
                "ask the vendor for it, or whether a mode of the HSM (FIPS) forbids it; `keymill hsm doctor` examines the module"
            }
            None => "look at the device and its log, and try again",
        },
    };
    let failure = match error.kind() {
        OpenErrorKind::Module | OpenErrorKind::NoSuchToken | OpenErrorKind::Input => {
            Failure::wrong_use(message)
        }
        _ => Failure::new(message),
    };
    failure.next(next)
}

/// Makes the failure of a token that does not do what it was asked, with what to do next where its reason shows.
fn failed(error: impl fmt::Display) -> Failure {
    let message = error.to_string();
    match next_after(&message) {
        Some(next) => Failure::new(message).next(next),
        None => Failure::new(message),
    }
}

/// Says what to do next, by the reason: the plugin tells it in words alone.
fn next_after(message: &str) -> Option<&'static str> {
    let says = |words: &str| message.contains(words);
    match () {
        () if says("CKR_PIN_LEN_RANGE") || says("CKR_PIN_INVALID") => {
            Some("the token wants another kind of PIN: its documentation says which length and characters")
        }
        () if says("CKR_PIN") => Some(
            "check the PIN before you try again: it was tried once, and tokens lock after a few wrong ones",
        ),
        () if says("not initialised for keymill") || says("does not hold the domain") => Some(
            "`keymill hsm init`, with --domain where it has a name, makes its keys, and leaves all else on the token as it is",
        ),
        () if says(DOMAIN_KEY_LABEL) && says("already") => Some(
            "the token is in use by keymill: `keymill hsm doctor` examines it, and nothing makes it anew",
        ),
        () if says("does not wrap") => {
            Some("ask the vendor for AES key wrap with padding (RFC 5649, CKM_AES_KEY_WRAP_KWP)")
        }
        () if says("AES-GCM") => Some(
            "ask the vendor for CKM_AES_GCM with the caller's nonce, or whether a mode of the HSM (FIPS) forbids it",
        ),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_fits_its_field_and_reads_back_as_it_was() {
        for good in ["a", "my token", &"x".repeat(LABEL_BYTES)] {
            assert_eq!(parse_label(good).as_deref(), Ok(good));
        }
        for bad in ["", "ends in a blank ", &"x".repeat(LABEL_BYTES + 1)] {
            assert!(parse_label(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_module_is_told_with_what_to_name() {
        for path in ["no/such/module.so", "Cargo.toml"] {
            let told = load(Path::new(path)).unwrap_err().to_string();
            assert!(told.contains("no PKCS#11 module") && told.contains("next: "), "{told}");
        }
    }

    #[test]
    fn no_pin_is_tried_where_a_wrong_one_would_lock_the_token() {
        let good = TokenInfo {
            label: "t".into(),
            manufacturer: String::new(),
            model: String::new(),
            serial: String::new(),
            firmware: String::new(),
            initialized: true,
            pin_set: true,
            pin_final_try: false,
            pin_locked: false,
            login_required: true,
            open_sessions: None,
            max_sessions: None,
        };
        assert!(check_pin_state(&good).is_ok());
        for bad in [
            TokenInfo { pin_set: false, ..good.clone() },
            TokenInfo { pin_locked: true, ..good.clone() },
            TokenInfo { pin_final_try: true, ..good.clone() },
        ] {
            assert!(check_pin_state(&bad).unwrap_err().to_string().contains("next: "));
        }
    }
}
