//! `openssl` as a second opinion on what is issued: a program of its own, which shares nothing with ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder in which `openssl` works.
pub struct OpenSsl {
    folder: TempDir,
}

impl Default for OpenSsl {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenSsl {
    /// Makes an empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// Returns the path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), content).expect("a file");
    }

    /// Runs it; returns whether it succeeded, and what it said.
    pub fn run(&self, arguments: &[&str]) -> (bool, String) {
        let ran = Command::new("openssl").current_dir(self.folder.path()).args(arguments).output();
        let ran = ran.expect("openssl is installed");
        let told = [&ran.stdout[..], &ran.stderr[..]].concat();
        (ran.status.success(), String::from_utf8_lossy(&told).into_owned())
    }

    /// Runs it, and ends the test where it fails.
    pub fn does(&self, arguments: &[&str]) -> String {
        let (done, told) = self.run(arguments);
        assert!(done, "openssl {arguments:?}: {told}");
        told
    }

    /// Makes a key in `<name>.key`, and a request for a certificate of it in PEM.
    pub fn request(&self, name: &str, subject: &str, alt_names: &[&str]) -> String {
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        let names = format!("subjectAltName={}", alt_names.join(","));
        let mut arguments =
            vec!["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        arguments.extend(["-keyout", &key, "-out", &csr, "-subj", subject]);
        if !alt_names.is_empty() {
            arguments.extend(["-addext", &names]);
        }
        self.does(&arguments);
        std::fs::read_to_string(self.file(&csr)).expect("it wrote a request")
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}
