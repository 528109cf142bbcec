//! The module of a simulated HSM by itself, in a plain loop over its own calls: what it loses of the process's memory while keys pass through
//! a small cache, with nothing of the server beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};

use keymill_provider_pkcs11::module::{Attribute, Mechanism, Object, Session, number::*};

use crate::Simulated;

/// How often the growth is read.
const LEGS: u64 = 4;
const PAD: Mechanism<'_> = Mechanism::Plain(CKM_AES_KEY_WRAP_PAD);
const GCM: Mechanism<'_> = Mechanism::Gcm { nonce: &[7; 12], aad: &[] };
const TEXT: &[u8] = b"kept";

/// A plain loop: each turn opens a text under one of the keys, as if by chance; one that is not loaded is unwrapped, and the one loaded first
/// is destroyed for it.
pub struct Plain {
    /// Keys that are used.
    pub keys: usize,
    /// Different ones among them.
    pub different: usize,
    /// Loaded at most.
    pub loaded: usize,
    /// Whether a text is opened.
    pub opens: bool,
    /// Each with a session of its own; a key is unwrapped by whichever finds it missing.
    pub threads: usize,
}

/// A wrapped key, and a text under it.
type Stored = ([u8; 40], [u8; TEXT.len() + 16]);

/// The keys that are loaded, and the session that they are objects of.
struct Cache {
    owner: Session,
    wrapping: Object,
    /// By the number of the key: the object, and how many use it just now.
    objects: Vec<Option<(Object, u32)>>,
    /// By when they were loaded.
    order: VecDeque<usize>,
    limit: usize,
}

impl Plain {
    /// Returns by how many bytes the process grows at each unwrap, by quarters of `unwraps`, after a tenth of them to warm up; `None` where
    /// the module does not wrap such keys. Nothing else may run in the process.
    pub fn lost(&self, hsm: &Simulated, unwraps: u64) -> Option<[f64; LEGS as usize]> {
        let owner = hsm.log_in();
        let wrapping = make(&owner, &[(CKA_WRAP, true), (CKA_UNWRAP, true)]);
        let stored = (0..self.different).map(|_| store(&owner, wrapping)).collect::<Option<Vec<_>>>()?;
        let cache = Mutex::new(Cache {
            owner,
            wrapping,
            objects: vec![None; self.keys],
            order: VecDeque::with_capacity(self.loaded + 1),
            limit: self.loaded,
        });
        let done = AtomicU64::new(0);
        let together = Barrier::new(self.threads + 1);
        std::thread::scope(|scope| {
            // Threads that stay, as those of a pool do: the allocator gives each a part of its own.
            for thread in 0..self.threads as u64 {
                let (cache, stored, done, together) = (&cache, &stored, &done, &together);
                let session = hsm.log_in();
                scope.spawn(move || {
                    for leg in 0..=LEGS {
                        together.wait();
                        let until = unwraps / 10 + leg * unwraps / LEGS;
                        self.work(&session, cache, stored, done, (thread + 1) * 7_919 + leg, until);
                        together.wait();
                    }
                });
            }
            let leg = |_| {
                let before = resident();
                together.wait();
                together.wait();
                resident().saturating_sub(before) as f64 / (unwraps / LEGS) as f64
            };
            leg(0);
            Some(std::array::from_fn(leg))
        })
    }

    fn work(
        &self,
        session: &Session,
        cache: &Mutex<Cache>,
        stored: &[Stored],
        done: &AtomicU64,
        mut state: u64,
        until: u64,
    ) {
        let locked = || cache.lock().unwrap_or_else(PoisonError::into_inner);
        while done.load(Ordering::Relaxed) < until {
            let number = next(&mut state) % self.keys;
            let (blob, sealed) = &stored[number % stored.len()];
            let mut cache = locked();
            if cache.objects[number].is_none() {
                cache.load(number, blob);
                done.fetch_add(1, Ordering::Relaxed);
            }
            if !self.opens {
                continue;
            }
            let Some((object, users)) = &mut cache.objects[number] else { continue };
            *users += 1;
            let object = *object;
            drop(cache);
            let mut text = [0; TEXT.len() + 16];
            session.decrypt_init(GCM, object).expect("a text's opening begins");
            session.decrypt(sealed, &mut text).expect("a text opens");
            if let Some((_, users)) = &mut locked().objects[number] {
                *users -= 1;
            }
        }
    }
}

impl Cache {
    fn load(&mut self, number: usize, blob: &[u8]) {
        let flags = |flags: &[(CK_ATTRIBUTE_TYPE, bool)]| -> Vec<Attribute<'static>> {
            flags.iter().map(|(kind, value)| Attribute::flag(*kind, *value)).collect()
        };
        let mut template =
            vec![Attribute::number(CKA_CLASS, CKO_SECRET_KEY), Attribute::number(CKA_KEY_TYPE, CKK_AES)];
        // As the provider unwraps a key of `InHsm`.
        template.extend(flags(&[
            (CKA_PRIVATE, true),
            (CKA_DECRYPT, true),
            (CKA_SIGN, false),
            (CKA_ENCRYPT, true),
            (CKA_VERIFY, false),
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_TOKEN, false),
            (CKA_WRAP, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ]));
        let object = self.owner.unwrap_key(PAD, self.wrapping, blob, &template).expect("a key unwraps");
        self.objects[number] = Some((object, 0));
        self.order.push_back(number);
        while self.order.len() > self.limit {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.objects[oldest].take() {
                Some((object, 0)) => self.owner.destroy_object(object).expect("a key is destroyed"),
                // Whoever uses it still will not for long.
                in_use => {
                    self.objects[oldest] = in_use;
                    self.order.push_back(oldest);
                }
            }
        }
    }
}

fn make(session: &Session, flags: &[(CK_ATTRIBUTE_TYPE, bool)]) -> Object {
    let mut template = vec![Attribute::number(CKA_VALUE_LEN, 32), Attribute::flag(CKA_TOKEN, false)];
    template.extend(flags.iter().map(|(kind, value)| Attribute::flag(*kind, *value)));
    session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).expect("a key is made")
}

fn store(session: &Session, wrapping: Object) -> Option<Stored> {
    let key = make(session, &[(CKA_EXTRACTABLE, true), (CKA_ENCRYPT, true)]);
    let (mut blob, mut sealed) = ([0; 40], [0; TEXT.len() + 16]);
    session.wrap_key(PAD, wrapping, key, &mut blob).ok()?;
    session.encrypt_init(GCM, key).expect("a text's sealing begins");
    session.encrypt(TEXT, &mut sealed).expect("a text is sealed");
    session.destroy_object(key).expect("a key is destroyed");
    Some((blob, sealed))
}

/// Returns how much memory the process has, in bytes.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel tells");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4_096
}

/// Returns numbers that look like chance and are the same each time.
pub fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}
