//! MariaDB.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::Database;
use crate::keeper::Keeper;
use crate::place::{Place, free_port};

/// A MariaDB.
pub struct MariaDb {
    keeper: Keeper,
    port: u16,
    place: Place,
}

impl MariaDb {
    /// Makes its files and starts it.
    pub fn start() -> Self {
        let place = Place::new("mysql");
        let made = place
            .command("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg(format!("--datadir={}", place.at("data").display()))
            .output()
            .expect("setpriv is there: util-linux");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let database = Self { keeper: run(&place, port), port, place };
        // Without them nobody is let in who has no name.
        database.sql("DELETE FROM mysql.global_priv WHERE User = ''; FLUSH PRIVILEGES");
        database
    }

    fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--batch", "--skip-column-names", "--connect-timeout=60"]);
        client
    }
}

fn run(place: &Place, port: u16) -> Keeper {
    let at = |name: &str| place.at(name).display().to_string();
    let mut command = place.command(program());
    command.arg("--no-defaults");
    for option in [
        format!("datadir={}", at("data")),
        format!("socket={}", at("socket")),
        format!("pid-file={}", at("pid")),
        format!("port={port}"),
        "bind-address=127.0.0.1".into(),
        format!("ssl-ca={}", at("ca.pem")),
        format!("ssl-cert={}", at("server.pem")),
        format!("ssl-key={}", at("server.key")),
        // All that is asked of it is logged.
        "general-log=ON".into(),
        format!("general-log-file={}", at("general.log")),
        "skip-name-resolve".into(),
        "innodb-buffer-pool-size=16M".into(),
        "innodb-log-file-size=8M".into(),
        "innodb-flush-log-at-trx-commit=0".into(),
        "innodb-use-native-aio=OFF".into(),
        "plugin-load-add=auth_ed25519".into(),
    ] {
        command.arg(format!("--{option}"));
    }
    Keeper::start_logged(command, place.at("log"), "ready for connections")
}

/// Finds the program, which is in no PATH but root's.
fn program() -> PathBuf {
    let all = ["/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/bin/mariadbd"].map(PathBuf::from);
    all.into_iter().find(|program| program.exists()).expect("apt-get install mariadb-server, or tests/run")
}

impl Database for MariaDb {
    fn port(&self) -> u16 {
        self.port
    }

    fn sql(&self, sql: &str) -> String {
        let mut client = self.client();
        client.arg("--user=root").arg(format!("--socket={}", self.socket().display()));
        let done = client.args(["--execute", sql]).output().expect("mariadb is there");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn create_account(&self, name: &str, password: &str) {
        self.sql(&format!("CREATE USER {name} IDENTIFIED BY '{password}'"));
    }

    fn log_in(&self, account: &str, password: &str) -> Result<(), String> {
        let mut client = self.client();
        client.args(["--protocol=tcp", "--host=127.0.0.1", "--ssl-verify-server-cert"]);
        client.arg(format!("--port={}", self.port)).arg(format!("--user={account}"));
        client.arg(format!("--ssl-ca={}", self.ca_file().display())).arg("--execute=SELECT 1");
        client.env("MYSQL_PWD", password);
        let done = client.output().expect("mariadb is there");
        match done.status.success() && done.stdout == b"1\n" {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.place.at("socket")
    }

    fn other_ca_file(&self) -> PathBuf {
        self.place.at("other-ca.pem")
    }

    fn ca_file(&self) -> PathBuf {
        self.place.at("ca.pem")
    }

    fn log(&self) -> String {
        let read = |name| std::fs::read(self.place.at(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("general.log"), read("log")].concat()).into_owned()
    }

    fn stop(&mut self) {
        self.keeper.end(Signal::SIGKILL);
    }

    fn start_again(&mut self) {
        self.keeper = run(&self.place, self.port);
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.keeper.end(Signal::SIGKILL);
    }
}
