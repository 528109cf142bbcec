//! PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::Database;
use crate::keeper::Keeper;
use crate::place::{Place, free_port};

/// Who may come how: the superuser by the socket alone; accounts by SCRAM over TLS, over the socket and, on this machine, in clear; and some whose
/// names say how a careless administrator would let them in.
const WHO: &str = "\
local all postgres trust
local all all scram-sha-256
host all trusted 127.0.0.1/32 trust
host all plain 127.0.0.1/32 password
host all md5er 127.0.0.1/32 md5
host all all 127.0.0.1/32 scram-sha-256
";

/// A PostgreSQL.
pub struct Postgres {
    keeper: Keeper,
    options: Vec<String>,
    programs: PathBuf,
    port: u16,
    place: Place,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Makes a cluster and starts it with options of the server, each as `name=value`, before which ours stand back.
    pub fn start_with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let programs = programs();
        let place = Place::new("postgres");
        let made = place
            .command(programs.join("initdb"))
            .args([
                "--pgdata=data",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .output()
            .expect("setpriv is there: util-linux");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        place.write("who.conf", WHO);
        let port = free_port();
        Self { keeper: run(&programs, &place, port, &options), options, programs, port, place }
    }

    /// Kills every process of it without a warning, as the loss of a machine does.
    pub fn kill(&mut self) {
        self.keeper.kill_all();
    }

    /// Saves all that it holds now: it stops, is copied, and starts again.
    pub fn save(&mut self) {
        self.stop();
        self.copy("data", "saved");
        self.start_again();
    }

    /// Kills it, and starts it again with what was saved.
    pub fn put_back(&mut self) {
        self.kill();
        self.copy("saved", "data");
        self.start_again();
    }

    fn copy(&self, from: &str, to: &str) {
        let _absent = std::fs::remove_dir_all(self.place.at(to));
        let copied = self.place.command("cp").args(["-a", from, to]).output().expect("cp is there");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--set=ON_ERROR_STOP=1", "--port", &self.port.to_string()]);
        psql.env("PGCONNECT_TIMEOUT", "60");
        psql
    }
}

fn run(programs: &Path, place: &Place, port: u16, options: &[String]) -> Keeper {
    let folder = place.path().display();
    let mut command = place.command(programs.join("postgres"));
    command.args(["-D", "data"]);
    for option in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        format!("unix_socket_directories={folder}"),
        format!("hba_file={folder}/who.conf"),
        "ssl=on".into(),
        format!("ssl_cert_file={folder}/server.pem"),
        format!("ssl_key_file={folder}/server.key"),
        "password_encryption=scram-sha-256".into(),
        // All that is asked of it is logged, to a file and, until it is up, to us.
        "log_statement=all".into(),
        "log_connections=on".into(),
        "log_min_messages=debug1".into(),
        "log_min_error_statement=debug1".into(),
        "fsync=off".into(),
        "max_connections=50".into(),
        "shared_buffers=16MB".into(),
    ] {
        command.args(["-c", &option]);
    }
    // The last that names an option has it.
    for option in options {
        command.args(["-c", option]);
    }
    Keeper::start_logged(command, place.at("log"), "database system is ready to accept connections")
}

/// Finds the programs: the newest of Debian's, which are in no PATH.
fn programs() -> PathBuf {
    let mut all: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    all.sort();
    all.pop().expect("apt-get install postgresql, or tests/run").1
}

impl Database for Postgres {
    fn port(&self) -> u16 {
        self.port
    }

    fn sql(&self, sql: &str) -> String {
        let mut psql = self.psql();
        psql.args(["--username=postgres", "--dbname=postgres", "--host"]).arg(self.place.path());
        let done = psql.args(["--command", sql]).output().expect("psql is there");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn create_account(&self, name: &str, password: &str) {
        self.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"));
    }

    fn log_in(&self, account: &str, password: &str) -> Result<(), String> {
        let mut psql = self.psql();
        psql.args(["--host=localhost", "--username", account, "--dbname=postgres", "--command=SELECT 1"]);
        psql.env("PGPASSWORD", password).env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", self.ca_file());
        let done = psql.output().expect("psql is there");
        match done.status.success() && done.stdout == b"1\n" {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.place.at(&format!(".s.PGSQL.{}", self.port))
    }

    fn other_ca_file(&self) -> PathBuf {
        self.place.at("other-ca.pem")
    }

    fn ca_file(&self) -> PathBuf {
        self.place.at("ca.pem")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.place.at("log")).expect("there is a log")).into_owned()
    }

    fn stop(&mut self) {
        self.keeper.end(Signal::SIGQUIT);
    }

    fn start_again(&mut self) {
        self.keeper = run(&self.programs, &self.place, self.port, &self.options);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.keeper.end(Signal::SIGQUIT);
    }
}
