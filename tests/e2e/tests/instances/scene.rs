//! A server of the real program with networks, and what is asked of it as its administrator and as an instance.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, HttpClient, Options};
use keymill_core::operation::*;
use keymill_e2e::{Answered, Caller, From};
use keymill_harness::program::{self, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The networks of every scene: their names, and where their requests come from.
pub(crate) const NETWORKS: [(&str, &str); 3] =
    [("one", "127.0.0.2"), ("two", "127.0.0.3"), ("three", "127.0.0.4")];
/// An address of no network.
pub(crate) const ELSEWHERE: &str = "127.0.0.9";

pub(crate) const NOT_FOUND: &str = "Forbidden.ResourceNotFound";
pub(crate) const STATE: &str = "Forbidden.DKMSInstanceStateInvalid";
pub(crate) const STRANGER: &str = "SignatureDoesNotMatch";

pub(crate) struct Scene {
    pub(crate) place: TempDir,
    pub(crate) server: Option<Server>,
}

/// An instance, and its first access key.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) credentials: Credentials,
}

impl Scene {
    pub(crate) fn start() -> Self {
        let place = TempDir::new().unwrap();
        let sections =
            NETWORKS.map(|(name, source)| format!("[networks.{name}]\nsources = [\"{source}\"]\n"));
        std::fs::write(place.path().join("keymill.toml"), sections.concat()).unwrap();
        let mut scene = Self { place, server: None };
        scene.serve();
        scene
    }

    pub(crate) fn serve(&mut self) {
        let config = self.place.path().join("keymill.toml");
        self.server = Some(Server::start_with(self.place.path(), &["--config", config.to_str().unwrap()]));
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn root(&self) -> Credentials {
        program::credentials(self.place.path())
    }

    /// Logs in from an address.
    pub(crate) fn try_caller(&self, source: &str, credentials: &Credentials) -> Result<Caller, String> {
        let way = From::address(source, self.server().msgpack);
        match Connection::open(way.address, credentials, &Options::default()) {
            Ok(connection) => Ok(Caller::of(connection)),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    }

    #[track_caller]
    pub(crate) fn caller(&self, source: &str, credentials: &Credentials) -> Caller {
        self.try_caller(source, credentials).unwrap()
    }

    pub(crate) fn administrator(&self) -> Caller {
        self.caller(ELSEWHERE, &self.root())
    }

    /// Asks over HTTP from an address.
    pub(crate) fn web(&self, source: &str, credentials: &Credentials) -> Result<(), String> {
        let way = From::address(source, self.server().http);
        let client = HttpClient::new(&format!("http://{}", way.address), Duration::from_secs(20)).unwrap();
        match client.call(ListKeysRequest::default(), credentials) {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) fn make(&self, name: &str) -> Made {
        let made =
            self.administrator().ask_json("CreateKmsInstance", json!({ "InstanceName": name })).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
        Made { id: text("KmsInstanceId"), credentials }
    }

    pub(crate) fn connected(&self, name: &str, vpc: &str) -> Made {
        let made = self.make(name);
        self.asked("ConnectKmsInstance", json!({ "KmsInstanceId": made.id, "VpcId": vpc })).unwrap();
        made
    }

    /// Has the administrator of the installation ask for something; the code of a refusal.
    pub(crate) fn asked(&self, operation: &str, parameters: Value) -> Result<Value, String> {
        self.administrator().ask_json(operation, parameters).map_err(|error| error.code)
    }

    pub(crate) fn shown(&self, id: &str) -> Value {
        self.asked("GetKmsInstance", json!({ "KmsInstanceId": id })).unwrap()["KmsInstance"].clone()
    }

    pub(crate) fn release(&self, id: &str, force: &str) -> Result<Value, String> {
        self.asked("ReleaseKmsInstance", json!({ "KmsInstanceId": id, "ForceDeleteWithoutBackup": force }))
    }

    pub(crate) fn bind(&self, id: &str, vpcs: &[&str]) -> Result<Value, String> {
        let rows: Vec<_> = vpcs.iter().map(|vpc| json!({ "VpcId": vpc })).collect();
        self.asked("UpdateKmsInstanceBindVpc", json!({ "KmsInstanceId": id, "BindVpcs": rows }))
    }

    /// Has the audit checked against the store, of the installation or of an instance; the server is stopped.
    #[track_caller]
    pub(crate) fn verify(&self, whose: &[&str]) {
        let mut command = Command::new(program::program());
        command
            .args(["audit", "verify", "--store", "--data-dir"])
            .arg(self.place.path().join("data"))
            .args(whose);
        let verified = command.output().unwrap();
        let told = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success(), "{told}{}", String::from_utf8_lossy(&verified.stderr));
        assert!(told.contains(" 0 bad") && told.contains(" 0 wrong"), "{told}");
    }

    pub(crate) fn audit_of(&self, id: &str) -> PathBuf {
        self.place.path().join("data/audit/instances").join(id)
    }
}

/// Returns what a refusal says.
pub(crate) fn told<T>(answered: Answered<T>) -> String {
    let error = answered.map(drop).unwrap_err();
    format!("{} {} {}", error.code, error.status, error.message)
}

pub(crate) fn source_of(vpc: &str) -> &'static str {
    NETWORKS.iter().find(|(name, _)| *name == vpc).unwrap().1
}
