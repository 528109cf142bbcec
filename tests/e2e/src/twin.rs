//! The same at the instance beside (`KEYMILL_TEST_INSTANCES`): whatever a caller asks the scene, somebody asks there at the same time, by the same
//! names. So both are under the same load, each alias and secret is there twice, and what is the scene's is asked for where it must be unknown.

use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_harness::Live;

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What policies name that are for the instance that they are made in, where that is an installation.
const SHARED: &str = "shared";

/// Somebody at the instance beside.
pub(crate) struct Twin {
    connection: Connection,
    /// The scene's id, and that of the instance beside.
    ids: [String; 2],
    /// What the aliases there are of.
    key: CmkId,
    /// What was asked, and is not answered yet.
    asked: Option<Asked>,
}

struct Asked {
    id: u64,
    /// Whether it names what only the scene has.
    is_foreign: bool,
}

impl Twin {
    /// Logs in at the instance beside, where there is one.
    pub(crate) fn of(live: &Live) -> Option<Self> {
        let (id, address, credentials) = live.neighbour()?;
        let ids = [live.instance()?, id].map(str::to_owned);
        let mut connection = open(address, credentials);
        connection.set_read_timeout(PATIENCE).expect("a time-out can be set");
        connection.send(&CreateKeyRequest::default().into()).expect("the request can be sent");
        let answer = connection.receive().expect("there is an answer");
        let key = match answer.result().expect("a key can be created beside") {
            Reply::CreateKey(reply) => reply.key_metadata.key_id,
            other => panic!("answered as {:?}", other.operation()),
        };
        Some(Self { connection, ids, key, asked: None })
    }

    /// Has a request of the scene be for the scene: what an installation calls by a name of its own, an instance calls by its id.
    pub(crate) fn place(&self, request: &mut Request<'_>) {
        name_instance(request, SHARED, &self.ids[0]);
    }

    /// Asks for the same, and leaves the request as it was.
    pub(crate) fn ask(&mut self, request: &mut Request<'_>) {
        let [scene, beside] = &self.ids;
        name_instance(request, scene, beside);
        // The name is to be there, too, and the key is not.
        let own = |key: &mut KeyRef| std::mem::replace(key, KeyRef::Id(self.key));
        let moved = match request {
            Request::CreateAlias(r) => Some(own(&mut r.key_id)),
            Request::UpdateAlias(r) => Some(own(&mut r.key_id)),
            _ => None,
        };
        let id = self.connection.send(request).expect("the request can be sent beside");
        self.connection.flush().expect("the request can be sent beside");
        self.asked = Some(Asked { id, is_foreign: is_foreign(request) });
        match (request, moved) {
            (Request::CreateAlias(r), Some(key)) => r.key_id = key,
            (Request::UpdateAlias(r), Some(key)) => r.key_id = key,
            _ => {}
        }
    }

    /// Takes the answer to what was asked last.
    ///
    /// # Panics
    /// Where there is none, and where anything of the scene is known there.
    pub(crate) fn answer(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        let answer = self.connection.receive().expect("there is an answer from beside");
        assert_eq!(answer.id(), asked.id, "one at a time");
        match answer.result() {
            Ok(reply) => {
                assert!(!asked.is_foreign, "{:?} reached what is another instance's", reply.operation());
                let opened = match &reply {
                    Reply::BatchDecrypt(reply) => reply.items.iter().flatten().count(),
                    Reply::BatchReEncrypt(reply) => reply.items.iter().flatten().count(),
                    _ => 0,
                };
                assert_eq!(opened, 0, "{:?} opened what is another instance's", reply.operation());
            }
            Err(ClientError::Refused(_)) => {}
            Err(other) => panic!("beside: {other}"),
        }
    }
}

fn open(address: std::net::SocketAddr, credentials: &Credentials) -> Connection {
    Connection::open(address, credentials, &Options::default()).expect("the login beside is good")
}

/// Has a policy that is for one instance be for another.
fn name_instance(request: &mut Request<'_>, from: &str, to: &str) {
    if let Request::CreatePolicy(r) = request
        && r.kms_instance.as_deref() == Some(from)
    {
        r.kms_instance = Some(to.to_owned());
    }
}

/// Tells whether a request names a key by its id, or brings what one has encrypted: neither is anything outside of the scene.
fn is_foreign(request: &Request<'_>) -> bool {
    let is_id = |key: &KeyRef| matches!(key, KeyRef::Id(_));
    match request {
        Request::Decrypt(_) | Request::ReEncrypt(_) => true,
        Request::DescribeKey(r) => is_id(&r.key_id),
        Request::Encrypt(r) => is_id(&r.key_id),
        Request::GenerateDataKey(r) => is_id(&r.key_id),
        Request::EnableKey(r) => is_id(&r.key_id),
        Request::DisableKey(r) => is_id(&r.key_id),
        Request::ScheduleKeyDeletion(r) => is_id(&r.key_id),
        Request::CancelKeyDeletion(r) => is_id(&r.key_id),
        Request::RotateKey(r) => is_id(&r.key_id),
        Request::ListKeyVersions(r) => is_id(&r.key_id),
        _ => false,
    }
}
