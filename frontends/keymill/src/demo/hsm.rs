//! `keymill demo --hsm`: the same with keys in a token, which is made for it in a scratch directory, and beside it the module driven by a
//! plain loop. Modules for tests read from their environment where their tokens are, so the demo starts itself again with that set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use keymill_bench::token::scratch::{self, Pins};
use keymill_core::Sensitive;
use serde::Serialize;

use super::Tally;
use crate::config::{Config, RootKind, TokenSection};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::number::{
    CKA_CLASS, CKA_DECRYPT, CKA_ENCRYPT, CKA_KEY_TYPE, CKA_TOKEN, CKA_VALUE, CKK_AES, CKO_SECRET_KEY,
};
use crate::plugins::pkcs11::module::{Attribute, Mechanism, Module, Object, Session, User};
use crate::private;

const LABEL: &str = "keymill-demo";
/// How long the plain loop runs after each window of records.
const RAW_TIME: Duration = Duration::from_millis(200);
/// Items between two looks at the clock.
const RAW_ITEMS: usize = 256;

/// The flags of the demo with a token.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct HsmArgs {
    /// Have the keys in a token of SoftHSM, made for the demo: once with every item in the token, once with subkeys that it derives
    #[arg(long, conflicts_with = "input")]
    hsm: bool,
    /// Another PKCS#11 module than the SoftHSM that is found; it is told of its token as SoftHSM or Kryoptic are
    #[arg(long, value_name = "PATH", requires = "hsm")]
    module: Option<PathBuf>,
    /// Sessions of the token: one suits a module in software
    #[arg(long, value_name = "N", requires = "hsm", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions: u16,
    /// The scratch directory, for the demo that the demo started
    #[arg(long, value_name = "DIR", hide = true)]
    hsm_place: Option<PathBuf>,
}

/// What the module does by itself, as `--json` prints it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct RawRates {
    /// Encryptions by a plain loop over the module's own calls, with as many sessions, in the same run.
    pub(super) raw_hsm_ops_per_s: f64,
    /// Decryptions by it.
    pub(super) raw_hsm_decrypt_ops_per_s: f64,
}

impl HsmArgs {
    /// Tells whether keys are to be in a token.
    pub(super) fn is_wanted(&self) -> bool {
        self.hsm
    }

    /// Returns the scratch directory, where there is one.
    pub(super) fn place(&self) -> Option<&Path> {
        self.hsm_place.as_deref()
    }

    fn module(&self) -> Result<PathBuf> {
        if let Some(named) = &self.module {
            return Ok(named.clone());
        }
        scratch::softhsm().ok_or_else(|| {
            Failure::new("SoftHSM is not installed where distributions put it")
                .next("install it (Debian: apt-get install softhsm2), or name it with --module PATH")
        })
    }

    /// Makes a scratch directory, and runs the demo in a process whose environment names it.
    pub(super) fn run_in_scratch(&self) -> Result<()> {
        // Refused here, where there is nothing to take away yet.
        self.module()?;
        let ended =
            scratch::run_again("keymill-demo-hsm-", "--hsm-place").map_err(Failure::because("the demo"))?;
        match ended.success() {
            true => Ok(()),
            false => Err(Failure::told(ended)),
        }
    }

    /// Makes the token in the scratch directory, and configures an instance for it.
    pub(super) fn prepare(&self, place: &Path, config: &mut Config) -> Result<Token> {
        let module = self.module()?;
        let because = || Failure::because("the token");
        let pins = Pins::draw().map_err(because())?;
        let pin_file = place.join("pin");
        private::create(&pin_file, pins.user.expose())?;
        pins.make_token(&module, LABEL, true).map_err(because())?;
        config.root.kind = RootKind::Pkcs11;
        config.pool.token = vec![TokenSection {
            name: "demo".into(),
            module: module.clone(),
            label: LABEL.into(),
            pin_file: Some(pin_file),
            sessions: Some(self.sessions.into()),
            ..TokenSection::default()
        }];
        Ok(Token { module, pin: pins.user, sessions: self.sessions.into() })
    }
}

/// The token that was made.
pub(super) struct Token {
    module: PathBuf,
    pin: Sensitive,
    sessions: usize,
}

/// The module driven by a plain loop, a thread a session.
pub(super) struct Raw {
    lanes: Vec<RawLane>,
    encrypt: Tally,
    decrypt: Tally,
}

struct RawLane {
    session: Session,
    key: Object,
    text: Vec<u8>,
    sealed: Vec<u8>,
}

/// The associated data of a record without a context.
const AAD: [u8; 26] = [1; 26];
const NONCE: [u8; 12] = [7; 12];
const TAG_BYTES: usize = 16;

impl Token {
    /// Opens sessions beside those of the server.
    pub(super) fn raw(&self, item_bytes: usize) -> Result<Raw> {
        let module = Module::load(&self.module).map_err(Failure::because("the module"))?;
        let because = || Failure::because("the module");
        module.initialize().map_err(because())?;
        let slots = module.slots().map_err(because())?;
        let ours = |slot: &_| module.token_info(*slot).is_ok_and(|info| info.label == LABEL);
        let slot = slots.into_iter().find(ours).ok_or_else(|| Failure::new("the token is gone"))?;
        let lane = || -> Result<RawLane> {
            let session = module.open_session(slot, false).map_err(because())?;
            // Logged in already, where the server is: a login is the process's.
            let _already = session.login(User::User, &self.pin);
            // Of the plain loop's own, and known: nothing of worth is sealed under it.
            let key = session
                .create_object(&[
                    Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
                    Attribute::number(CKA_KEY_TYPE, CKK_AES),
                    Attribute::flag(CKA_TOKEN, false),
                    Attribute::flag(CKA_ENCRYPT, true),
                    Attribute::flag(CKA_DECRYPT, true),
                    Attribute::bytes(CKA_VALUE, &[5; 32]),
                ])
                .map_err(because())?;
            Ok(RawLane {
                session,
                key,
                text: vec![3; item_bytes + TAG_BYTES],
                sealed: vec![0; item_bytes + TAG_BYTES],
            })
        };
        let lanes = (0..self.sessions).map(|_| lane()).collect::<Result<_>>()?;
        Ok(Raw { lanes, encrypt: Tally::default(), decrypt: Tally::default() })
    }
}

impl Raw {
    /// Runs the plain loop for a while, and adds to its rates.
    pub(super) fn run(&mut self) -> Result<()> {
        let (items, time) = self.each(RawLane::encrypt)?;
        self.encrypt.add(items, time);
        let (items, time) = self.each(RawLane::decrypt)?;
        self.decrypt.add(items, time);
        Ok(())
    }

    /// Returns the rates so far.
    pub(super) fn rates(&self) -> RawRates {
        RawRates { raw_hsm_ops_per_s: self.encrypt.rate(), raw_hsm_decrypt_ops_per_s: self.decrypt.rate() }
    }

    fn each(
        &mut self,
        work: impl Fn(&mut RawLane) -> Result<()> + Copy + Send + Sync,
    ) -> Result<(u64, Duration)> {
        let began = Instant::now();
        let items = std::thread::scope(|scope| {
            let run = |lane: &mut RawLane| -> Result<u64> {
                let mut done = 0;
                while began.elapsed() < RAW_TIME {
                    (0..RAW_ITEMS).try_for_each(|_| work(lane))?;
                    done += RAW_ITEMS as u64;
                }
                Ok(done)
            };
            let threads: Vec<_> = self.lanes.iter_mut().map(|lane| scope.spawn(move || run(lane))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the plain loop returns its failures"))
                .sum::<Result<u64>>()
        })?;
        Ok((items, began.elapsed()))
    }
}

impl RawLane {
    fn encrypt(&mut self) -> Result<()> {
        let text = &self.text[..self.text.len() - TAG_BYTES];
        self.session
            .encrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &AAD }, self.key)
            .and_then(|()| self.session.encrypt(text, &mut self.sealed))
            .map(drop)
            .map_err(Failure::because("the plain loop"))
    }

    fn decrypt(&mut self) -> Result<()> {
        self.session
            .decrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &AAD }, self.key)
            .and_then(|()| self.session.decrypt(&self.sealed, &mut self.text))
            .map(drop)
            .map_err(Failure::because("the plain loop"))
    }
}
