//! Secrets to be measured with: many of them made, and one read by its name in this process.

use std::time::Instant;

use keymill_client::{Client, ClientError};
use keymill_core::id::SecretName;
use keymill_core::operation::{CreateSecretRequest, GetSecretValueRequest, Reply, SecretText};
use keymill_runtime::gate::Ask;
use keymill_runtime::work::Cancel;
use keymill_runtime::{Call, Gate, Opened, Sheet};

use crate::error::{BenchError, Result};
use crate::fixture::Fixture;

/// Threads that make secrets: commits that wait at the same time are one.
const MAKERS: usize = 32;

/// Returns the name of secret `n`.
///
/// # Errors
/// None that happens: it is a name.
pub fn name(n: usize) -> Result<SecretName> {
    format!("bench/{n:07}/db").parse().map_err(|_| BenchError::new("the name of a secret is none"))
}

/// Makes so many secrets, each with one version of 64 characters.
///
/// # Errors
/// [`BenchError`] where the server refuses one.
pub fn make(fixture: &Fixture, count: usize) -> Result<()> {
    let clients = (0..MAKERS).map(|_| fixture.client()).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let makers = clients.iter().enumerate();
        let makers: Vec<_> = makers
            .map(|(at, client)| {
                scope.spawn(move || (at..count).step_by(MAKERS).try_for_each(|n| create(client, n)))
            })
            .collect();
        makers.into_iter().try_for_each(|maker| maker.join().expect("a maker runs to its end"))
    })
}

fn create(client: &Client, n: usize) -> Result<()> {
    let value = format!("{n:064}");
    let request = CreateSecretRequest {
        secret_name: name(n)?,
        version_id: "v1".parse().map_err(|_| BenchError::new("a version has no such name"))?,
        secret_data: SecretText::from(&*value),
        secret_data_type: None,
        secret_type: None,
        encryption_key_id: None,
        description: None,
        tags: None,
        policy: None,
        extended_config: None,
        enable_automatic_rotation: None,
        rotation_interval: None,
        dkms_instance_id: None,
        timeout_ms: Some(60_000),
    };
    client.call(request).map(drop).map_err(|error: ClientError| BenchError::new(error.to_string()))
}

/// Reads secrets by their names, on the caller's own thread.
pub struct Reader<'f> {
    fixture: &'f Fixture,
    gate: Gate,
    names: Vec<SecretName>,
    next: usize,
}

impl<'f> Reader<'f> {
    /// Makes a reader of the first `count` secrets, in an order that no cache foresees.
    ///
    /// # Errors
    /// None that happens.
    pub fn new(fixture: &'f Fixture, count: usize) -> Result<Self> {
        // A prime that shares no factor with the counts that are measured.
        const STEP: usize = 7_919;
        let names = (0..count).map(|n| name(n * STEP % count)).collect::<Result<_>>()?;
        Ok(Self { fixture, gate: fixture.gate(), names, next: 0 })
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`BenchError`] where it is not what was put.
    pub fn read(&mut self) -> Result<()> {
        let name = &self.names[self.next % self.names.len()];
        self.next += 1;
        let request = GetSecretValueRequest {
            secret_name: name.clone().into(),
            version_id: None,
            version_stage: None,
            fetch_extended_config: None,
            timeout_ms: None,
        };
        let call = Call {
            request_id: self.gate.request_id(),
            principal: self.fixture.principal(),
            source: None,
            frontend: "in-process",
            received: Instant::now(),
            nonce: None,
        };
        let opened = self.gate.open(Ask {
            call,
            request: request.into(),
            is_text: false,
            is_dry_run: false,
            frame: None,
            sheet: Sheet::plain(None),
            reply_to: None,
            cancel: Cancel::default(),
            ticket: 0,
        });
        let Opened::Job(job) = opened else {
            return Err(BenchError::new("a read is no management operation"));
        };
        let finished = self.gate.perform(job)?;
        match &*finished.reply().map_err(|error| BenchError::new(error.message()))? {
            Reply::GetSecretValue(reply) if reply.secret_data.expose().len() == 64 => Ok(()),
            _ => Err(BenchError::new("a secret has another value")),
        }
    }
}
