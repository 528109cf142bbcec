//! Certificates that an authority issues whose key is in a token, beside the module's own signatures in a plain loop, with as many sessions, by
//! turns in one run: `cargo run --release -p keymill-bench --example certificates [PAIRS]`; SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE`
//! names it. Both sides pass through the simulator of `tests/modules`, which adds nothing here.

#![allow(clippy::print_stdout, reason = "its table")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use keymill_bench::Fixture;
use keymill_bench::issue::Issuing;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec};
use keymill_harness::Farm;
use keymill_provider_pkcs11::module::number::{
    CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT, CKA_SIGN, CKA_TOKEN, CKM_RSA_PKCS, CKM_RSA_PKCS_KEY_PAIR_GEN,
};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, Module, Object, Session, User};

type Failed = Box<dyn std::error::Error>;

/// Of a request.
const CERTIFICATES: usize = 128;
const LEG: Duration = Duration::from_secs(2);
/// Bytes of an encoded SHA-256 (RFC 8017 §9.2).
const DIGEST_INFO: usize = 51;

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
            while began.elapsed() < LEG {
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
    let farm = Farm::with(1, "lazy_control = true");
    println!("                               certificates/s     beside    ratio");
    for sessions in [1, 2] {
        let name = format!("RSA_2048, {sessions} sessions : C_Sign");
        let fixture = Fixture::start_in_tokens(farm.parts(sessions), BulkMode::InHsm)?;
        let issuing = Issuing::open(&fixture, KeySpec::Rsa2048, CERTIFICATES)?;
        let raw = RawSigner::open(&farm, sessions)?;
        row(&name, pairs, || Ok(issuing.rate(LEG)?), || raw.rate())?;
    }
    Ok(())
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
