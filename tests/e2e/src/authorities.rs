//! Certificate authorities of keymill's own: a scene with a root and one below it, what is asked of them by callers and over HTTP by anybody, and how
//! what they answer is read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;
use keymill_runtime::config::AuthorityConfig;
use serde_json::{Value, json};

use crate::{Caller, OpenSsl, Rows};

/// An engine with certificate authorities, and who made them.
pub struct Scene {
    /// The engine.
    pub live: Live,
    /// Who may do everything.
    pub caller: Caller,
    /// What that one logs in by.
    pub credentials: Credentials,
}

impl Scene {
    /// Returns options under which authorities are known to the world, and looked after all the time.
    pub fn config() -> EngineConfig {
        let authorities = AuthorityConfig {
            public_url: Some("http://pki.example".into()),
            check: Duration::from_millis(20),
        };
        EngineConfig { authorities, ..EngineConfig::default() }
    }

    /// Starts one with a root and an authority below it.
    pub fn begin() -> Self {
        let mut scene = Self::empty(Setup::new(Self::config()));
        let root = json!({ "AuthorityName": "root", "Subject": "CN=Root,O=Example" });
        scene.ask("CreateCertificateAuthority", root).expect("a root");
        scene.below("issuing", json!({})).expect("an authority below it");
        scene
    }

    /// Starts one without authorities.
    pub fn empty(setup: Setup) -> Self {
        let Started { live, credentials } = Live::start_with(setup);
        let caller = Caller::new(&live, &credentials);
        Self { live, caller, credentials }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// What the server answers.
    pub fn ask(&mut self, operation: &str, parameters: Value) -> Result<Value, ServerError> {
        self.caller.ask_json(operation, parameters)
    }

    /// Makes an authority below the root, with these parameters beside its name.
    ///
    /// # Errors
    /// What the server answers.
    pub fn below(&mut self, name: &str, with: Value) -> Result<Value, ServerError> {
        let asked = json!({
            "AuthorityName": name, "Subject": format!("CN={name},O=Example"), "Parent": "root", "PathLength": 0,
        });
        self.ask("CreateCertificateAuthority", extended(asked, &with))
    }

    /// Asks the authority below the root for a server's certificate, or for what these parameters say.
    ///
    /// # Errors
    /// What the server answers.
    pub fn issue(&mut self, with: Value) -> Result<Value, ServerError> {
        let asked = json!({ "AuthorityName": "issuing", "Profile": "server" });
        self.ask("IssueCertificate", extended(asked, &with))
    }

    /// Returns what is told of an authority.
    pub fn describe(&mut self, authority: &str) -> Value {
        let asked = json!({ "AuthorityName": authority });
        self.ask("DescribeCertificateAuthority", asked).expect("it is there")
    }

    /// Returns the certificate of an authority in PEM.
    pub fn pem_of(&mut self, authority: &str) -> String {
        text(&self.describe(authority), "Certificate")
    }

    /// Makes somebody with these grants.
    pub fn other(&mut self, grants: Value) -> Caller {
        let credentials = self.caller.credentials(serde_json::from_value(grants).expect("grants"));
        Caller::new(&self.live, &credentials)
    }

    /// Makes an access point with a policy of its own, and logs in by a client key of it.
    pub fn application(&mut self, name: &str, roles: &[&str], resources: &[&str]) -> Caller {
        let roles: Vec<_> = roles.iter().map(|role| format!("RbacPermission/Template/{role}")).collect();
        let policy =
            json!({ "Name": name, "KmsInstance": "shared", "Permissions": roles, "Resources": resources });
        self.ask("CreatePolicy", policy).expect("a policy");
        let point = json!({ "Name": name, "Policies": [name] });
        self.ask("CreateApplicationAccessPoint", point).expect("an access point");
        let key = json!({ "AapName": name, "Password": "secret-1234", "TimeoutMs": 60_000 });
        let key = self.ask("CreateClientKey", key).expect("a client key");
        let file = json!({ "KeyId": key["ClientKeyId"], "PrivateKeyData": key["PrivateKeyData"] });
        let credentials = Credentials::of_client_key_file(file.to_string().as_bytes(), "secret-1234");
        Caller::new(&self.live, &credentials.expect("the file of a client key"))
    }

    /// Stops, has something done to what is stored while nothing runs, and starts again.
    pub fn again(self, setup: Setup, meanwhile: impl FnOnce(&Site)) -> Self {
        let Self { live, caller, credentials } = self;
        let site = live.halt();
        drop(caller);
        meanwhile(&site);
        let live = site.start(setup);
        let caller = Caller::new(&live, &credentials);
        Self { live, caller, credentials }
    }

    /// Stops and starts again.
    pub fn restart(self) -> Self {
        self.again(Setup::new(Self::config()), |_| ())
    }

    /// Has something done to the rows that are stored while nothing runs.
    pub fn meanwhile(self, change: impl FnOnce(&Rows)) -> Self {
        self.again(Setup::new(Self::config()), |site| change(&Rows::of(site)))
    }
}

/// Returns parameters with others put in, or in their place.
fn extended(mut asked: Value, with: &Value) -> Value {
    asked.as_object_mut().expect("parameters").extend(with.as_object().expect("parameters").clone());
    asked
}

/// Puts root, issuer and leaf where `openssl` finds them.
pub fn put_chain(tool: &OpenSsl, scene: &mut Scene, issued: &Value) {
    let (root, issuing) = (scene.pem_of("root"), scene.pem_of("issuing"));
    tool.put("root.pem", root);
    tool.put("issuing.pem", &issuing);
    tool.put("leaf.pem", text(issued, "Certificate"));
    assert_eq!(text(issued, "CertificateChain"), issuing, "all above the leaf but the root");
}

/// Returns the text of a member of a reply.
pub fn text(reply: &Value, member: &str) -> String {
    reply[member].as_str().unwrap_or_else(|| panic!("{member} in {reply}")).to_owned()
}

/// Returns the code of what is refused.
pub fn code(answered: Result<Value, ServerError>) -> String {
    answered.expect_err("it is refused").code
}

/// Returns what is told of what is refused.
pub fn message(answered: Result<Value, ServerError>) -> String {
    answered.expect_err("it is refused").message
}

/// Asks over HTTP as anybody does; returns the status, the head, and the body.
fn http(server: SocketAddr, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(server).expect("the server is there");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream.write_all(request).expect("it can be sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("there is an answer");
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, head, all[end + 4..].to_vec())
}

/// Fetches something over HTTP; returns the status, the head, and the body.
pub fn get(server: SocketAddr, path: &str) -> (u16, String, Vec<u8>) {
    http(server, format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
}

/// Asks a question of OCSP over HTTP; returns the status, the head, and the body.
pub fn post(server: SocketAddr, path: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/ocsp-request\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    http(server, &[head.as_bytes(), body].concat())
}
