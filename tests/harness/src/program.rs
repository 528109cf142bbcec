//! The real program as a child process: started on a scratch directory, killed at will, started again on what it left behind.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use keymill_client::{Connection, Credentials, Options};

/// Finds the program: `KEYMILL_BIN`, or what Cargo built beside this test, or the release build.
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("KEYMILL_BIN") {
        return named.into();
    }
    let test = std::env::current_exe().expect("a test knows its own file");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let release = profile.with_file_name("release");
    [profile, &release]
        .map(|folder| folder.join("keymill"))
        .into_iter()
        .find(|file| file.exists())
        .expect("the program is not built: cargo build -p keymill, or set KEYMILL_BIN")
}

/// A running `keymill serve`.
pub struct Server {
    child: Child,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where MessagePack TCP listens.
    pub msgpack: SocketAddr,
}

impl Server {
    /// Starts the server on `place` and waits until it serves.
    pub fn start(place: &Path) -> Self {
        Self::start_with(place, &[])
    }

    /// Starts the server on `place` with more flags, and waits until it serves.
    pub fn start_with(place: &Path, flags: &[&str]) -> Self {
        let mut command = serve(place);
        command.args(flags);
        Self::start_by(command, place)
    }

    /// Starts the server on `place` by a command that [`serve`] made, and waits until it serves.
    pub fn start_by(mut command: Command, place: &Path) -> Self {
        // What a killed server left behind names listeners that are gone.
        let addresses = place.join("data/addresses.json");
        let _absent = std::fs::remove_file(&addresses);
        let mut child = command.spawn().expect("the program starts");
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                let mut told = String::new();
                child.stderr.take().expect("it is piped").read_to_string(&mut told).expect("text");
                panic!("the server ended with {status}: {told}");
            }
            if let Ok(text) = std::fs::read_to_string(&addresses)
                && let Ok(value) = serde_json::from_str::<serde_json::Value>(&text)
                && let [Some(http), Some(msgpack)] = ["http", "msgpack"]
                    .map(|listener| value[listener].as_str().and_then(|text| text.parse().ok()))
            {
                return Self { child, http, msgpack };
            }
            assert!(Instant::now() < patience, "the server does not come up");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill is there");
        assert!(asked.success());
    }

    /// Asks it to end, waits, and returns what it wrote to standard error.
    pub fn stop_and_read(mut self) -> String {
        self.signal("TERM");
        self.child.wait().expect("our own child");
        let mut told = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut told).expect("text");
        told
    }

    /// Kills it without a warning.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("our own child")
    }

    /// Logs in, if the server is there.
    pub fn connect(address: SocketAddr, credentials: &Credentials) -> Option<Connection> {
        Connection::open(address, credentials, &Options::default()).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Returns the command that serves on `place`.
pub fn serve(place: &Path) -> Command {
    serve_at(place, "127.0.0.1:0")
}

/// Returns the command that serves on `place`, with both listeners at `address`.
pub fn serve_at(place: &Path, address: &str) -> Command {
    serve_on(place, address, address)
}

/// Returns the command that serves on `place`, with a listener at each address.
pub fn serve_on(place: &Path, http: &str, msgpack: &str) -> Command {
    let mut command = Command::new(program());
    command
        .arg("serve")
        .args(["--http", http, "--msgpack", msgpack])
        .arg("--data-dir")
        .arg(place.join("data"))
        .arg("--credentials")
        .arg(place.join("credentials.json"))
        .env("KEYMILL_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Reads the credentials that the first start wrote to `place`.
pub fn credentials(place: &Path) -> Credentials {
    let text = std::fs::read_to_string(place.join("credentials.json")).expect("the first start wrote it");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let text = |name: &str| value[name].as_str().expect("text").to_owned();
    Credentials::new(text("AccessKeyId").parse().expect("an id"), text("AccessKeySecret"))
}
