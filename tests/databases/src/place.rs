//! Where a database lives: a scratch folder that its account may reach, with certificates in it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Uid, User};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A scratch folder, and the account that it is for.
pub(crate) struct Place {
    folder: TempDir,
    account: Option<User>,
}

impl Place {
    /// Makes one, with `ca.pem`, `other-ca.pem`, which has signed nothing, and `server.pem` with `server.key` for `localhost` and 127.0.0.1.
    pub(crate) fn new(account: &str) -> Self {
        // Neither server runs as root.
        let account = Uid::effective().is_root().then(|| {
            User::from_name(account)
                .expect("accounts can be asked for")
                .expect("the package has made its account")
        });
        let folder = scratch()
            .into_iter()
            .find_map(|folder| tempfile::Builder::new().prefix("km.").tempdir_in(folder).ok());
        let place = Self { folder: folder.expect("there is room for a database"), account };
        place.certify();
        place.hand_over(place.path());
        place
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a file or folder in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Returns the command that runs a program as the account, and ends it with the thread that starts it.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        if let Some(account) = &self.account {
            command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
            command.arg("--clear-groups");
        }
        command.arg("--pdeathsig=KILL").arg("--").arg(program.as_ref()).current_dir(self.path());
        command.env("HOME", self.path()).env("TMPDIR", self.path());
        command
    }

    /// Writes a file that is the account's.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, text).expect("a scratch folder can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        self.hand_over(&path);
        path
    }

    fn hand_over(&self, path: &Path) {
        if let Some(account) = &self.account {
            chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())).expect("root may");
        }
    }

    fn certify(&self) {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().expect("a key is made");
            let certificate = params.self_signed(&key).expect("it signs itself");
            (certificate.pem(), Issuer::new(params, key))
        };
        let (ca, issuer) = authority("the test's own");
        let (other, _) = authority("another");
        let key = KeyPair::generate().expect("a key is made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names).expect("two good names");
        let server = server.signed_by(&key, &issuer).expect("the CA signs");
        self.write("ca.pem", &ca);
        self.write("other-ca.pem", &other);
        self.write("server.pem", &server.pem());
        self.write("server.key", &key.serialize_pem());
    }
}

/// Folders that everybody may pass through: in memory first.
fn scratch() -> Vec<PathBuf> {
    let open = |folder: &Path| {
        folder
            .ancestors()
            .all(|folder| fs::metadata(folder).is_ok_and(|its| its.permissions().mode() & 0o1 == 1))
    };
    let all = [std::env::temp_dir(), "/dev/shm".into(), "/tmp".into(), "/var/tmp".into()];
    all.into_iter().filter(|folder| open(folder)).collect()
}

/// Returns a port that nobody listens at, of those that the system gives nobody by itself: one of these could be another's by the time that a server
/// takes it, or takes it again.
pub(crate) fn free_port() -> u16 {
    /// Ports that are taken from, below the first that the system gives.
    const BELOW: u32 = 20_000;
    /// How far apart programs begin that run at the same time.
    const EACH: u32 = 97;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|text| text.parse().ok());
    let first = first.filter(|first| *first > BELOW + 1_024).unwrap_or(32_768);
    loop {
        let at = process::id().wrapping_mul(EACH).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(first - BELOW + at % BELOW).expect("it is below one of the system's");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
