//! A service of secrets for tests: it counts what it is asked, and can be held up, be away, or say no.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymill_core::id::VersionStage;
use keymill_core::operation::{SecretDataType, SecretText};
use parking_lot::Mutex;

use crate::secrets::{Asked, SecretValue, Secrets, SecretsError};

/// What it does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    IsAway,
    SaysNo,
}

pub(crate) struct FakeSecrets {
    values: Mutex<HashMap<String, String>>,
    asked: AtomicUsize,
    mood: Mutex<Mood>,
    hold: Option<flume::Receiver<()>>,
}

impl Default for FakeSecrets {
    fn default() -> Self {
        let mood = Mutex::new(Mood::Answers);
        Self { values: Mutex::default(), asked: AtomicUsize::new(0), mood, hold: None }
    }
}

impl FakeSecrets {
    /// Makes a service each of whose requests waits for a message.
    pub(crate) fn held_up() -> (flume::Sender<()>, Self) {
        let (go, hold) = flume::unbounded();
        (go, Self { hold: Some(hold), ..Self::default() })
    }

    pub(crate) fn put(&self, name: &str, value: &str) {
        self.values.lock().insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn turn(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Secrets for FakeSecrets {
    async fn read(&self, asked: &Asked) -> Result<SecretValue, SecretsError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(hold) = &self.hold {
            hold.recv_async().await.expect("the test lets go");
        }
        let mood = *self.mood.lock();
        let value = self.values.lock().get(asked.name.as_str()).cloned();
        match (mood, value) {
            (Mood::IsAway, _) => Err(SecretsError::unavailable("away")),
            (Mood::Answers, Some(value)) => Ok(SecretValue {
                name: asked.name.clone(),
                version: "v1".parse().expect("a version"),
                stages: vec![VersionStage::current()],
                data_type: SecretDataType::Text,
                value: SecretText::from(value),
            }),
            (Mood::SaysNo, _) | (Mood::Answers, None) => Err(SecretsError::refused("no")),
        }
    }
}
