//! Certificates for tests of TLS: an authority, what it issues and revokes, and a directory with the files of a listener.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use keymill_client::{ALPN, ClientOptions, ClientTls, Tls};
use keymill_core::Sensitive;
use keymill_tls::{Options, ServerTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// An authority that signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicU64,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate in PEM.
    pub certificate: String,
    /// Its key in PEM.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
    serial: u64,
}

impl Authority {
    /// Makes one.
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("an authority");
        Self { issuer, issued: AtomicU64::new(0) }
    }

    /// Returns its own certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for names and addresses.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
                .expect("names"),
        )
    }

    /// Issues one whose time is over.
    pub fn expired(&self, names: &[&str]) -> Issued {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(2021, 1, 1);
        self.issue(parameters)
    }

    /// Issues one for a client of that URI.
    pub fn client(&self, uri: &str) -> Issued {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names.push(SanType::URI(uri.try_into().expect("a URI is ASCII")));
        self.issue(parameters)
    }

    fn issue(&self, mut parameters: CertificateParams) -> Issued {
        let serial = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        parameters.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
            serial,
        }
    }

    /// Returns the list of what it has revoked, in PEM.
    pub fn revoke(&self, revoked: &[&Issued]) -> String {
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// A directory with the files of a listener and of its clients.
pub struct Place(TempDir);

impl Place {
    /// Makes one with the certificate of a listener.
    pub fn with(server: &Issued) -> Self {
        let place = Self(tempfile::tempdir().expect("a scratch directory"));
        place.serve(server);
        place
    }

    /// Returns the path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts another certificate in the place of the listener's.
    pub fn serve(&self, server: &Issued) {
        self.put("server.crt", &server.certificate);
        self.put("server.key", &server.key);
    }

    /// Writes a file in one go, private as keys have to be.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        // A scratch file of this kind has mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(self.0.path()).expect("a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("it can be written");
        file.persist(self.path(name)).expect("it can be put there");
        self.path(name)
    }

    /// Returns the options of a listener that speaks `alpn`.
    pub fn options(&self, alpn: &'static [u8]) -> Options {
        Options::new(self.path("server.crt"), self.path("server.key"), read, alpn)
    }

    /// Opens the TLS of a MessagePack TCP listener.
    pub fn open(&self) -> ServerTls {
        ServerTls::open(self.options(keymill_msgpack::ALPN)).expect("the files are good")
    }

    /// Makes the TLS of a client that trusts `authority`, and shows a certificate where it has one.
    pub fn client(&self, authority: &Authority, identity: Option<&Issued>) -> ClientTls {
        let ca = self.put("trusted.crt", &authority.pem());
        let identity = identity
            .map(|issued| (self.put("client.crt", &issued.certificate), self.put("client.key", &issued.key)));
        ClientTls::open(&ClientOptions { ca, identity, read_key: read }, ALPN).expect("the files are good")
    }

    /// Makes the options of a client that trusts `authority` and wants to reach 127.0.0.1.
    pub fn to_here(&self, authority: &Authority, identity: Option<&Issued>) -> keymill_client::Options {
        let tls = Tls { tls: self.client(authority, identity), host: Some("127.0.0.1".to_owned()) };
        keymill_client::Options { tls: Some(tls), ..keymill_client::Options::default() }
    }
}

fn read(path: &Path) -> Result<Option<Sensitive>, String> {
    fs::read(path)
        .map(|bytes| Some(Sensitive::new(bytes)))
        .map_err(|error| format!("{}: {error}", path.display()))
}
