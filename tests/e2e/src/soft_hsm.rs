//! SoftHSM for the real program: tokens that its own commands made ready, each by a file of the module that is its own, as another HSM's would be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keymill_harness::program::program;
use serde_json::Value;

/// Tokens below a directory.
pub struct SoftHsm {
    place: PathBuf,
    module: PathBuf,
}

impl SoftHsm {
    /// Finds the module that `TEST_PKCS11_MODULE` names, or SoftHSM, and prepares the directory; `None` where there is neither, which is said.
    pub fn below(place: &Path) -> Option<Self> {
        let named = std::env::var_os("TEST_PKCS11_MODULE").map(PathBuf::from);
        let usual = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
        let Some(module) = named.or_else(|| Some(usual).filter(|path| path.exists())) else {
            eprintln!("skipped: TEST_PKCS11_MODULE is not set, and SoftHSM is not there");
            return None;
        };
        let hsm = Self { place: place.to_owned(), module };
        fs::create_dir(hsm.path("tokens")).expect("a directory");
        let found = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.path("tokens").display()
        );
        fs::write(hsm.configuration(), found).expect("a file");
        for (name, pin) in [("pin", "4711-user"), ("so-pin", "0815-officer")] {
            fs::write(hsm.path(name), format!("{pin}\n")).expect("a file");
            fs::set_permissions(hsm.path(name), fs::Permissions::from_mode(0o600)).expect("our own file");
        }
        Some(hsm)
    }

    /// Returns the path of a file there.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Returns the file that `SOFTHSM2_CONF` is to name.
    pub fn configuration(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    /// Returns the module of a token.
    pub fn module(&self, label: &str) -> PathBuf {
        let own = self.path(&format!("{label}.so"));
        if !own.exists() {
            fs::copy(&self.module, &own).expect("the module can be copied");
        }
        own
    }

    /// Makes a token ready, by `keymill hsm init` with these flags.
    pub fn init(&self, label: &str, flags: &[&str]) {
        let mut words = vec!["init", "--token", label, "--so-pin-file", "so-pin", "--pin-file", "pin"];
        words.extend(flags);
        self.run(&words, Some(label));
    }

    /// Gives two tokens without keys those of one domain, by `keymill hsm ceremony` with these flags.
    pub fn ceremony(&self, labels: [&str; 2], flags: &[&str]) {
        let shown = self.run(
            &["ceremony", "wrapping-key", "--token", labels[1], "--pin-file", "pin", "--json"],
            Some(labels[1]),
        );
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let text = |name: &str| shown[name].as_str().expect("text").to_owned();
        let confirmed = format!("{}={}", text("serial"), &text("sha256")[60..]);
        let modules = labels.map(|label| self.module(label).display().to_string());
        let mut words = vec!["ceremony", "--module", modules[0].as_str(), "--module", modules[1].as_str()];
        words.extend(["--token", labels[0], "--token", labels[1], "--pin-file", "pin"]);
        words.extend(["--transcript", "transcript", "--yes", "--confirm", confirmed.as_str(), "--json"]);
        words.extend(flags);
        self.run(&words, None);
    }

    /// Runs `keymill hsm`, and returns what it wrote.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn run(&self, words: &[&str], label: Option<&str>) -> String {
        let mut command = Command::new(program());
        command.arg("hsm").args(words);
        if let Some(label) = label {
            command.arg("--module").arg(self.module(label));
        }
        command.env("SOFTHSM2_CONF", self.configuration()).current_dir(&self.place).stdin(Stdio::null());
        let ended = command.output().expect("the program runs");
        assert!(ended.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("text")
    }

    /// Returns the section of the configuration of a token in a worker, with further lines.
    pub fn section(&self, name: &str, label: &str, lines: &str) -> String {
        let (module, pin) = (self.module(label), self.path("pin"));
        format!(
            "[[pool.token]]\nname = {name:?}\nmodule = {module:?}\nlabel = {label:?}\npin_file = {pin:?}\nisolation = \"process\"\n{lines}\n"
        )
    }
}

/// Counts the workers of modules that a server has.
pub fn workers_of(server: u32) -> usize {
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let is_worker = |process: PathBuf| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == server.to_string()))
            && line.split('\0').any(|word| word == "hsm-worker")
    };
    entries.filter(|entry| is_worker(entry.path())).count()
}
