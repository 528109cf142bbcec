//! Secrets of database logins, rotated by the real program: a server whose one rotator reaches a real database through a proxy.

use std::path::Path;
use std::process::Command;

use keymill_client::{Connection, Credentials};
use keymill_core::operation::*;
use keymill_databases::{Database, MariaDb, Postgres};
use keymill_harness::program::{Server, credentials, serve};
use tempfile::TempDir;

use crate::{Caller, Proxy, create_secret, eventually};

/// How accounts take turns, as `ExtendedConfig` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One account.
    SingleUser,
    /// Two.
    DoubleUsers,
}

/// A database, a proxy before it, and a place for a server.
pub struct Rotated {
    /// The database.
    pub database: Box<dyn Database>,
    /// What the server reaches it through.
    pub proxy: Proxy,
    place: TempDir,
}

impl Rotated {
    /// Starts a PostgreSQL.
    pub fn postgresql() -> Self {
        Self::of(Box::new(Postgres::start()), "kind = \"postgresql\"\ndatabase = \"postgres\"")
    }

    /// Starts a MariaDB.
    pub fn mariadb() -> Self {
        Self::of(Box::new(MariaDb::start()), "kind = \"mysql\"")
    }

    fn of(database: Box<dyn Database>, kind: &str) -> Self {
        let proxy = Proxy::before(database.port());
        let place = tempfile::tempdir().expect("there is room");
        let config = format!(
            "[rotation]\ncheck_ms = 20\nfirst_retry_ms = 50\nmax_retry_ms = 200\nstep_timeout_ms = 20000\n\n\
             [rotators.db]\n{kind}\nhost = \"127.0.0.1\"\nport = {}\nserver_name = \"localhost\"\nca_file = \"{}\"\n\
             accounts = [\"app_*\"]\n",
            proxy.port(),
            database.ca_file().display()
        );
        std::fs::write(place.path().join("keymill.toml"), config).expect("there is room");
        Self { database, proxy, place }
    }

    /// Returns the place.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Starts the server, on what was left of the one before.
    pub fn start(&self) -> Server {
        let mut command: Command = serve(self.path());
        command.arg("--config").arg(self.path().join("keymill.toml"));
        Server::start_by(command, self.path())
    }

    /// Returns the access key of the first start.
    pub fn credentials(&self) -> Credentials {
        credentials(self.path())
    }

    /// Connects.
    pub fn connect(&self, server: &Server) -> Connection {
        Server::connect(server.msgpack, &self.credentials()).expect("a server that serves lets us in")
    }

    /// Makes the accounts of a secret, and the secret, whose version is `v0`.
    pub fn create(&self, caller: &mut Caller, secret: &str, strategy: Strategy) {
        let accounts: Vec<_> = ["a", "b"].map(|end| format!("app_{secret}_{end}")).into();
        let accounts = if strategy == Strategy::SingleUser { &accounts[..1] } else { &accounts[..] };
        let of = |name: &String| {
            self.database.create_account(name, "the-first-password");
            serde_json::json!({"AccountName": name, "AccountPassword": "the-first-password"})
        };
        let value = serde_json::json!({"Accounts": accounts.iter().map(of).collect::<Vec<_>>()}).to_string();
        let extended = serde_json::json!({"SecretSubType": format!("{strategy:?}"), "DBInstanceId": "db"});
        let request = CreateSecretRequest {
            secret_type: Some(SecretType::Rds),
            extended_config: Some(extended.to_string()),
            ..create_secret(secret, "v0", &value)
        };
        caller.create_secret_as(request).expect("the secret is made");
    }

    /// Logs in to the database by what the secret holds now.
    ///
    /// # Errors
    /// What the database's own client said.
    pub fn log_in(&self, caller: &mut Caller, secret: &str) -> Result<(), String> {
        let (version, value, _) = caller.value(secret).expect("the secret can be read");
        let value: serde_json::Value = serde_json::from_str(&value).expect("a login is JSON");
        let of = |member: &str| value[member].as_str().expect("a login has a name and a password").to_owned();
        let login = self.database.log_in(&of("AccountName"), &of("AccountPassword"));
        login.map_err(|said| format!("{secret}, version {version}: {said}"))
    }
}

/// Asks for a rotation, and does not wait for it.
pub fn ask_to_rotate(connection: &mut Connection, secret: &str, version: &str) {
    let request = RotateSecretRequest {
        secret_name: secret.parse().expect("the test's name is valid"),
        version_id: version.parse().expect("the test's version is valid"),
        timeout_ms: None,
    };
    connection.send(&request.into()).expect("the request can be sent");
    connection.flush().expect("the request can be sent");
}

/// Has a secret rotated.
pub fn rotate(caller: &mut Caller, secret: &str, version: &str) {
    let request = RotateSecretRequest {
        secret_name: secret.parse().expect("the test's name is valid"),
        version_id: version.parse().expect("the test's version is valid"),
        timeout_ms: Some(60_000),
    };
    caller.ask(request, |_| ()).expect("the secret is rotated");
}

/// Returns the stages of a version; none where there is no such version.
pub fn stages(caller: &mut Caller, secret: &str, version: &str) -> Option<Vec<String>> {
    let versions = caller.secret_versions(secret).expect("the versions can be listed");
    versions.into_iter().find(|(id, _)| id == version).map(|(_, stages)| stages)
}

/// Waits until no rotation of the secret is under way.
pub fn settled(caller: &mut Caller, secret: &str) {
    eventually("the rotation ends", || {
        let versions = caller.secret_versions(secret).expect("the versions can be listed");
        versions.iter().all(|(_, stages)| !stages.iter().any(|stage| stage == "ACSPending")).then_some(())
    });
}
