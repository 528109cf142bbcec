//! Keys in a token beside what the module does by itself: batches in this process under an `InHsm` CMK and a plain loop over the module's own
//! calls, with as many sessions, by turns in one run; an `HsmDerived` CMK beside a software CMK; and certificates that an authority issues whose key
//! is in the token, beside the module's own signatures. `cargo run --release -p keymill-bench --example hsm [PAIRS [PART OF A ROW'S NAME]]`; SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it. Both sides pass through the
//! simulator of `tests/modules`, which adds nothing here.

#![allow(clippy::print_stdout, reason = "its table")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use keymill_bench::Fixture;
use keymill_bench::in_process::{Caller, rate};
use keymill_bench::issue::Issuing;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec};
use keymill_harness::Farm;
use keymill_provider_pkcs11::module::number::{
    CKA_CLASS, CKA_DECRYPT, CKA_ENCRYPT, CKA_KEY_TYPE, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT, CKA_SIGN,
    CKA_TOKEN, CKA_VALUE, CKK_AES, CKM_RSA_PKCS, CKM_RSA_PKCS_KEY_PAIR_GEN, CKO_SECRET_KEY,
};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, Module, Object, Session, User};

type Failed = Box<dyn std::error::Error>;

const ITEMS: usize = 256;
const BYTES: usize = 1_024;
const TAG: usize = 16;
const LEG: Duration = Duration::from_millis(400);
const NONCE: [u8; 12] = [7; 12];
const AAD: [u8; 26] = [1; 26];
/// Of a request for certificates.
const CERTIFICATES: usize = 128;
/// A request for certificates takes longer than one for records.
const SIGNING_LEG: Duration = Duration::from_secs(2);
/// Bytes of an encoded SHA-256 (RFC 8017 §9.2).
const DIGEST_INFO: usize = 51;

/// A plain loop over the module's own calls, on one session.
struct Raw {
    session: Session,
    key: Object,
    /// Whether the module encrypts messages: `C_EncryptMessage`, its key initialised once.
    messages: bool,
}

impl Raw {
    fn open(farm: &Farm) -> Result<Self, Failed> {
        let module = Module::load(farm.hsms[0].library())?;
        module.initialize()?;
        let slot = *module.slots()?.first().ok_or("no slot")?;
        let session = module.open_session(slot, false)?;
        let _already = session.login(User::User, &Sensitive::copied(b"user-pin"));
        let key = session.create_object(&[
            Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
            Attribute::number(CKA_KEY_TYPE, CKK_AES),
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_ENCRYPT, true),
            Attribute::flag(CKA_DECRYPT, true),
            Attribute::bytes(CKA_VALUE, &[5; 32]),
        ])?;
        let messages = session.message_encrypt_init(key).is_ok() && session.message_encrypt_final().is_ok();
        Ok(Self { session, key, messages })
    }

    /// Returns encryptions a second.
    fn encrypt(&self) -> Result<f64, Failed> {
        let (text, mut out) = (vec![3; BYTES], vec![0; BYTES + TAG]);
        let (began, mut done) = (Instant::now(), 0);
        if self.messages {
            self.session.message_encrypt_init(self.key)?;
        }
        while began.elapsed() < LEG {
            for _ in 0..ITEMS {
                if self.messages {
                    let (sealed, tag) = out.split_at_mut(BYTES);
                    let tag = tag.first_chunk_mut().expect("room for a tag");
                    self.session.encrypt_message(&NONCE, &AAD, &text, sealed, tag)?;
                } else {
                    self.session.encrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &AAD }, self.key)?;
                    self.session.encrypt(&text, &mut out)?;
                }
            }
            done += ITEMS;
        }
        if self.messages {
            self.session.message_encrypt_final()?;
        }
        Ok(done as f64 / began.elapsed().as_secs_f64())
    }

    /// Returns decryptions a second.
    fn decrypt(&self) -> Result<f64, Failed> {
        let (text, mut sealed, mut out) = (vec![3; BYTES], vec![0; BYTES + TAG], vec![0; BYTES + TAG]);
        self.session.encrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &AAD }, self.key)?;
        self.session.encrypt(&text, &mut sealed)?;
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < LEG {
            for _ in 0..ITEMS {
                self.session.decrypt_init(Mechanism::Gcm { nonce: &NONCE, aad: &AAD }, self.key)?;
                self.session.decrypt(&sealed, &mut out)?;
            }
            done += ITEMS;
        }
        Ok(done as f64 / began.elapsed().as_secs_f64())
    }
}

/// A plain loop over `C_SignInit` and `C_Sign` under one RSA-2048 key, on as many sessions as threads.
struct RawSigner {
    /// Each is one thread's alone.
    sessions: Vec<Mutex<Session>>,
    key: Object,
}

impl RawSigner {
    fn open(farm: &Farm, sessions: usize) -> Result<Self, Failed> {
        let module = Module::load(farm.hsms[0].library())?;
        module.initialize()?;
        let slot = *module.slots()?.first().ok_or("no slot")?;
        let sessions =
            (0..sessions).map(|_| module.open_session(slot, false)).collect::<Result<Vec<_>, _>>()?;
        let _already = sessions[0].login(User::User, &Sensitive::copied(b"user-pin"));
        let flag = |name, value| Attribute::flag(name, value);
        let public = [
            flag(CKA_TOKEN, false),
            Attribute::number(CKA_MODULUS_BITS, 2_048),
            Attribute::bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]),
        ];
        let private = [flag(CKA_TOKEN, false), flag(CKA_SIGN, true)];
        let mechanism = Mechanism::Plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
        let (_, key) = sessions[0].generate_key_pair(mechanism, &public, &private)?;
        Ok(Self { sessions: sessions.into_iter().map(Mutex::new).collect(), key })
    }

    /// Returns signatures a second.
    fn rate(&self) -> Result<f64, Failed> {
        let pump = |session: &Mutex<Session>| -> Result<u64, Failed> {
            let session = session.lock().map_err(|_| "a thread panicked")?;
            let (digest, mut out) = ([3; DIGEST_INFO], [0; 256]);
            let (began, mut done) = (Instant::now(), 0);
            while began.elapsed() < SIGNING_LEG {
                session.sign_init(Mechanism::Plain(CKM_RSA_PKCS), self.key)?;
                session.sign(&digest, &mut out)?;
                done += 1;
            }
            Ok(done)
        };
        let began = Instant::now();
        let done = std::thread::scope(|scope| -> Result<u64, Failed> {
            let pumps: Vec<_> = self
                .sessions
                .iter()
                .map(|session| scope.spawn(move || pump(session).map_err(|error| error.to_string())))
                .collect();
            pumps
                .into_iter()
                .try_fold(0, |sum, pump| Ok(sum + pump.join().map_err(|_| "a thread panicked")??))
        })?;
        Ok(done as f64 / began.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Failed> {
    let pairs = std::env::args().nth(1).map_or(Ok(9), |text| text.parse())?;
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let wants = |name: &str| name.contains(&wanted);
    let farm = Farm::with(1, "lazy_control = true");
    println!("                                    items/s     beside    ratio");
    if wants("InHsm") || wants("HsmDerived") {
        records(&farm, pairs)?;
    }
    for sessions in [1, 2] {
        let name = format!("issue by RSA_2048, {sessions} sessions : C_Sign");
        if wants(&name) {
            let fixture = Fixture::start_in_tokens(farm.parts(sessions), BulkMode::InHsm)?;
            let issuing = Issuing::open(&fixture, KeySpec::Rsa2048, CERTIFICATES)?;
            let raw = RawSigner::open(&farm, sessions)?;
            row(&name, pairs, || Ok(issuing.rate(SIGNING_LEG)?), || raw.rate())?;
        }
    }
    Ok(())
}

fn records(farm: &Farm, pairs: usize) -> Result<(), Failed> {
    let fixture = Fixture::start_in_tokens(farm.parts(1), BulkMode::InHsm)?;
    let raw = Raw::open(farm)?;
    // Two callers keep one session busy: while one batch is in the token, the next is made ready.
    let sealing = || Ok(rate(2, LEG, || Ok(Caller::sealing(&fixture, ITEMS, BYTES)))?);
    let opening = || Ok(rate(2, LEG, || Caller::opening(&fixture, ITEMS, BYTES))?);
    let interface = if raw.messages { "C_EncryptMessage" } else { "C_Encrypt" };
    row(&format!("InHsm BatchEncrypt : {interface}"), pairs, sealing, || raw.encrypt())?;
    row("InHsm BatchDecrypt : C_Decrypt", pairs, opening, || raw.decrypt())?;
    drop((raw, fixture));
    let derived = Fixture::start_in_tokens(farm.parts(1), BulkMode::HsmDerived)?;
    let software = Fixture::start()?;
    let threads = std::thread::available_parallelism()?.get();
    let ours = || Ok(rate(threads, LEG, || Ok(Caller::sealing(&derived, ITEMS, BYTES)))?);
    let theirs = || Ok(rate(threads, LEG, || Ok(Caller::sealing(&software, ITEMS, BYTES)))?);
    row("HsmDerived BatchEncrypt : software", pairs, ours, theirs)?;
    let ours = || Ok(rate(threads, LEG, || Caller::opening(&derived, ITEMS, BYTES))?);
    let theirs = || Ok(rate(threads, LEG, || Caller::opening(&software, ITEMS, BYTES))?);
    row("HsmDerived BatchDecrypt : software", pairs, ours, theirs)
}

/// Measures both sides by turns, and prints the median of each and of the ratios.
fn row(
    name: &str,
    pairs: usize,
    ours: impl Fn() -> Result<f64, Failed>,
    beside: impl Fn() -> Result<f64, Failed>,
) -> Result<(), Failed> {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    ours()?;
    for _ in 0..pairs {
        let (one, other) = (ours()?, beside()?);
        a.push(one);
        b.push(other);
        ratios.push(one / other);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("{name:<34} {:>9.0}  {:>9.0}  {:>6.2}", median(&mut a), median(&mut b), median(&mut ratios));
    Ok(())
}
