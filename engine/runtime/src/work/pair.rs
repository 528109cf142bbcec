//! Data key pairs: made on the software lane, for one of RSA takes up to seconds, whatever its CMK is; its private half is then sealed as a
//! plaintext is, and what else is given out follows it on the sheet.

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::key::KeySpec;
use keymill_core::limit;
use keymill_core::operation::KeyFormat;
use keymill_core::seam::provider::{CryptoProvider, KeyMaterial, PublicKey, private_key_pem};

use super::desk::Desk;
use super::{Fault, Items, Job, Sealing, Task};
use crate::pool::chunk::{Tag, Work};

/// A data key pair that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedPair {
    pub(crate) spec: KeySpec,
    pub(crate) format: KeyFormat,
    pub(crate) with_plaintext: bool,
}

/// The order of one, and what came of it.
pub(crate) struct PairJob {
    pub(crate) spec: KeySpec,
    pub(crate) output: Option<(Sensitive, PublicKey)>,
}

impl PairJob {
    /// Makes the pair.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn make(&mut self, provider: &dyn CryptoProvider) -> Result<(), Fault> {
        let mut custody = provider.custody().map_err(Error::from)?;
        let made = custody.generate(self.spec, self.spec.usages()[0], None).map_err(Error::from)?;
        match (made.material, made.public_key) {
            (KeyMaterial::Clear(private), Some(public)) => {
                self.output = Some((private, public));
                Ok(())
            }
            _ => Err(Error::internal("software made a key pair that has no halves").into()),
        }
    }
}

/// A data key pair as it is given out.
pub(crate) struct MadePair {
    pub(crate) spec: KeySpec,
    /// In clear, where it is given out so.
    private: Option<Sensitive>,
    public: Vec<u8>,
}

/// Private bytes that are lent to those who seal them, and wiped behind them.
struct Held(Sensitive);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Desk {
    /// Tells whether a job has to wait for its data key pair; where that is there, the job goes on as one that seals a plaintext.
    pub(super) fn awaits_pair(&mut self, job: &mut Job) -> bool {
        let Task::Seal { to, what: Sealing::Pair(wanted), .. } = &job.task else { return false };
        let (to, wanted) = (to.clone(), *wanted);
        let mut away = self.trips.open(job);
        let outcome = match away.pair.take() {
            Some(Ok(halves)) => {
                take_over(job, wanted, halves);
                Ok(false)
            }
            Some(Err(fault)) => Err(fault),
            None => {
                let trip = job.trip.expect("a job that is open has a number");
                let work = Work::Pair(PairJob { spec: wanted.spec, output: None });
                let chunk = self.trips.chunk(job, Tag::Pair(trip), &to.entry, &to.version, work);
                let sent = self.trips.send(chunk);
                sent.map_err(|chunk| chunk.fault.clone().expect("the lane says why it took no chunk"))
                    .map(|()| true)
            }
        };
        self.trips.close(job, away);
        match outcome {
            Ok(waits) => {
                job.waits = waits;
                waits
            }
            Err(fault) => {
                super::hsm::fail_rest(job, &fault);
                true
            }
        }
    }
}

/// Makes the private half the plaintext of a job.
fn take_over(job: &mut Job, wanted: WantedPair, (private, public): (Sensitive, PublicKey)) {
    let (private, public) = match wanted.format {
        KeyFormat::Pem => (private_key_pem(&private), public.to_pem().into_bytes()),
        KeyFormat::Der => (private, public.as_der().to_vec()),
    };
    let shown = wanted.with_plaintext.then(|| Sensitive::copied(private.expose()));
    job.pair = Some(Box::new(MadePair { spec: wanted.spec, private: shown, public }));
    let len = private.len();
    let items = Items::even(bytes::Bytes::from_owner(Held(private)), len);
    if let Task::Seal { what, .. } = &mut job.task {
        *what = Sealing::Plaintexts { items, max_item_bytes: limit::BATCH_ITEM_BYTES, is_text: false };
    }
}

/// Puts what else is given out of a data key pair behind its encrypted private half, on the sheet of a job that is done.
pub(super) fn append(job: &mut Job) {
    let is_sealed = matches!(job.task, Task::Seal { .. }) && job.first_fault.is_none();
    let Some(pair) = job.pair.as_mut().filter(|_| is_sealed) else { return };
    let private = pair.private.take();
    let public = std::mem::take(&mut pair.public);
    for item in private.iter().map(Sensitive::expose).chain([&*public]) {
        let copy = |out: &mut [u8]| {
            out.copy_from_slice(item);
            Ok::<(), Fault>(())
        };
        job.sheet.put(item.len(), copy).expect("copying cannot fail");
    }
}

/// The fault of a pair that is not to come back.
pub(super) fn lost() -> Fault {
    Error::new(ErrorKind::Unavailable, "the data key pair was not made").into()
}
