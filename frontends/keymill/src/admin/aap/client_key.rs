//! `keymill aap key`: the keys that applications sign with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keymill_core::Sensitive;
use keymill_core::id::{AapName, ClientKeyId};
use keymill_core::operation::{
    CreateAcmeBindingRequest, CreateClientKeyRequest, CreateLoginTokenRequest, DeleteClientKeyRequest,
    GetClientKeyRequest, ListClientKeysRequest, RegisterClientCertificateRequest, RegisterClientKeyRequest,
    Reply,
};
use keymill_core::time::Timestamp;

use crate::admin::{Api, ask, of_another};
use crate::credentials::{PASSWORD, TokenFile};
use crate::failure::{Failure, Result};
use crate::output::{self, Rows};
use crate::private;

/// Bytes of a file with a public key, at most.
const PUBLIC_KEY_BYTES: u64 = 16 * 1024;

/// Make, register, list and revoke the keys that applications sign with
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientKeyArgs {
    #[command(subcommand)]
    command: ClientKeyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ClientKeyCommand {
    /// Make a client key; its private half is written to a file this once, which the cloud's SDKs read
    ///
    /// The file is locked with a password of 8 to 64 characters, which comes from --password-file or from KEYMILL_CLIENT_KEY_PASSWORD.
    Create {
        /// The access point that it is of
        #[arg(value_name = "AAP")]
        aap: AapName,
        /// Where to write it (mode 0600); the file must not exist yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The file that holds the password, mode 0600
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        span: SpanArgs,
    },
    /// Register a public key whose private half never leaves the application
    Register {
        /// The access point that it is of
        #[arg(value_name = "AAP")]
        aap: AapName,
        /// The public key in PEM: RSA of 2,048, 3,072 or 4,096 bits, or EC on P-256
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        #[command(flatten)]
        span: SpanArgs,
    },
    /// Have a TLS client certificate stand for a client key: who shows it over TLS needs no other
    Certificate {
        /// The access point that it is of
        #[arg(value_name = "AAP")]
        aap: AapName,
        /// A URI of its subject alternative name, such as spiffe://example/loader: every certificate with it
        #[arg(
            long,
            value_name = "URI",
            required_unless_present = "fingerprint",
            conflicts_with = "fingerprint"
        )]
        uri: Option<String>,
        /// SHA-256 of the one certificate in DER, as `openssl x509 -fingerprint -sha256` shows it
        #[arg(long, value_name = "HEX")]
        fingerprint: Option<String>,
        #[command(flatten)]
        span: SpanArgs,
    },
    /// Make a client key by which ACME clients bind their accounts to an access point
    ///
    /// The file has what certbot reads with --config; other clients are given the key id and the HMAC key of it.
    Acme {
        /// The access point that it is of
        #[arg(value_name = "AAP")]
        aap: AapName,
        /// Where to write it (mode 0600); the file must not exist yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        span: SpanArgs,
    },
    /// Make a login token of the client key that this command logs in with: --credentials with the file of one
    ///
    /// Whoever holds the token is the application over MessagePack TCP until it ends, or the client key does: what a farm of clients is given in the
    /// place of the key. `--credentials FILE` of every command takes the file.
    Token {
        /// Where to write it (mode 0600); the file must not exist yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// For how many seconds it is taken: 60 to 43200
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        seconds: u32,
    },
    /// List client keys
    List {
        /// Of this access point alone
        #[arg(value_name = "AAP")]
        aap: Option<AapName>,
    },
    /// Show a client key with its certificate
    Show(Named),
    /// Revoke a client key, from its next request on
    Delete(Named),
}

#[derive(Args, Clone, Debug)]
struct Named {
    /// Id of the client key
    #[arg(value_name = "ID")]
    id: ClientKeyId,
}

#[derive(Args, Clone, Debug)]
struct SpanArgs {
    /// From when on it is taken; with --not-after
    #[arg(long, value_name = "YYYY-MM-DDTHH:MM:SSZ", value_parser = parse_time, requires = "not_after")]
    not_before: Option<Timestamp>,
    /// Until when it is taken; five years from now unless told otherwise
    #[arg(long, value_name = "YYYY-MM-DDTHH:MM:SSZ", value_parser = parse_time, requires = "not_before")]
    not_after: Option<Timestamp>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "a time is of the form YYYY-MM-DDTHH:MM:SSZ".to_owned())
}

pub(super) fn run(api: &Api, args: ClientKeyArgs) -> Result<()> {
    let timeout_ms = None;
    match args.command {
        ClientKeyCommand::Create { aap, out, password_file, span } => {
            private::check_new(&out)?;
            let request = CreateClientKeyRequest {
                aap_name: aap.clone(),
                password: private::password(
                    password_file.as_deref(),
                    PASSWORD,
                    "no password to lock the client key with",
                )?,
                not_before: span.not_before,
                not_after: span.not_after,
                timeout_ms,
            };
            create(api, request, &out)
        }
        ClientKeyCommand::Register { aap, public_key, span } => {
            let request = RegisterClientKeyRequest {
                aap_name: aap.clone(),
                public_key: read_public_key(&public_key)?,
                not_before: span.not_before,
                not_after: span.not_after,
                timeout_ms,
            };
            let reply = ask!(api, RegisterClientKey, request);
            let (id, until) = (&reply.client_key_id, reply.not_after);
            api.done(&reply, format_args!("client key {id} of access point {aap} is taken until {until}"))
        }
        ClientKeyCommand::Certificate { aap, uri, fingerprint, span } => {
            let request = RegisterClientCertificateRequest {
                aap_name: aap.clone(),
                fingerprint,
                uri,
                not_before: span.not_before,
                not_after: span.not_after,
                timeout_ms,
            };
            let reply = ask!(api, RegisterClientCertificate, request);
            let (id, until) = (&reply.client_key_id, reply.not_after);
            api.done(&reply, format_args!("certificate {id} of access point {aap} is taken until {until}"))
        }
        ClientKeyCommand::Acme { aap, out, span } => {
            private::check_new(&out)?;
            let request = CreateAcmeBindingRequest {
                aap_name: aap,
                not_before: span.not_before,
                not_after: span.not_after,
                timeout_ms,
            };
            bind(api, request, &out)
        }
        ClientKeyCommand::Token { out, seconds } => token(api, seconds, &out),
        ClientKeyCommand::List { aap } => list(api, aap),
        ClientKeyCommand::Show(Named { id }) => {
            let reply = ask!(api, GetClientKey, GetClientKeyRequest { client_key_id: id, timeout_ms });
            if api.json {
                return output::json(&reply);
            }
            output::card(&[
                ("client key", &reply.client_key_id),
                ("access point", &reply.aap_name),
                ("algorithm", &reply.key_algorithm.name()),
                ("taken from", &reply.not_before),
                ("taken until", &reply.not_after),
                ("made", &reply.create_time),
            ])?;
            output::line(reply.public_key_data.trim_end())
        }
        ClientKeyCommand::Delete(Named { id }) => {
            let request = DeleteClientKeyRequest { client_key_id: id.clone(), timeout_ms };
            let reply = ask!(api, DeleteClientKey, request);
            api.done(&reply, format_args!("client key {id} is revoked"))
        }
    }
}

fn create(api: &Api, request: CreateClientKeyRequest, out: &Path) -> Result<()> {
    let aap = request.aap_name.clone();
    let answered = api.call(request)?;
    let reply = match answered.reply()? {
        Reply::CreateClientKey(reply) => reply,
        other => return Err(of_another(other.operation())),
    };
    let id = &reply.client_key_id;
    let mut file = serde_json::to_value(&reply).map_err(Failure::because("the client key"))?;
    let kept = serde_json::json!({ "KeyId": id, "PrivateKeyData": file["PrivateKeyData"].take() });
    private::create(out, kept.to_string().as_bytes()).map_err(|failure| {
        Failure::new(format!("client key {id} was made, and its private half is lost: {failure}"))
            .next(format!("`keymill aap key delete {id}`, and make another"))
    })?;
    match api.json {
        // The private half is in the file, and in no pipe.
        true => output::json(&serde_json::json!({
            "ClientKeyId": id, "NotAfter": reply.not_after, "RequestId": reply.request_id, "File": out,
        })),
        false => output::line(format_args!(
            "client key {id} of access point {aap} is in {}, and taken until {}",
            out.display(),
            reply.not_after
        )),
    }
}

fn bind(api: &Api, request: CreateAcmeBindingRequest, out: &Path) -> Result<()> {
    let aap = request.aap_name.clone();
    let reply = ask!(api, CreateAcmeBinding, request);
    let id = &reply.client_key_id;
    let text = format!("eab-kid = {id}\neab-hmac-key = {}\n", reply.hmac_key.expose());
    private::create(out, Sensitive::new(text.into_bytes()).expose()).map_err(|failure| {
        Failure::new(format!("client key {id} was made, and its HMAC key is lost: {failure}"))
            .next(format!("`keymill aap key delete {id}`, and make another"))
    })?;
    match api.json {
        // The HMAC key is in the file, and in no pipe.
        true => output::json(&serde_json::json!({
            "ClientKeyId": id, "NotAfter": reply.not_after, "RequestId": reply.request_id, "File": out,
        })),
        false => output::line(format_args!(
            "what binds ACME accounts to access point {aap} is in {}, and taken until {}",
            out.display(),
            reply.not_after
        )),
    }
}

fn token(api: &Api, seconds: u32, out: &Path) -> Result<()> {
    private::check_new(out)?;
    let request = CreateLoginTokenRequest { validity_seconds: Some(seconds), timeout_ms: None };
    let reply = ask!(api, CreateLoginToken, request);
    let (token, secret) = (reply.token.clone(), reply.secret.clone());
    let file = TokenFile { token, secret, not_after: reply.not_after };
    // Reserved at once: a growing buffer would leave copies of the secret behind.
    let mut text = Vec::with_capacity(1024);
    serde_json::to_writer(&mut text, &file).map_err(Failure::because("the token"))?;
    private::create(out, Sensitive::new(text).expose())?;
    match api.json {
        // The secret is in the file, and in no pipe.
        true => output::json(&serde_json::json!({
            "NotAfter": reply.not_after, "RequestId": reply.request_id, "File": out,
        })),
        false => output::line(format_args!(
            "a login token is in {}, and taken until {}",
            out.display(),
            reply.not_after
        )),
    }
}

fn read_public_key(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Failure::because(path.display()))?;
    let mut text = String::new();
    file.take(PUBLIC_KEY_BYTES).read_to_string(&mut text).map_err(Failure::because(path.display()))?;
    Ok(text)
}

fn list(api: &Api, aap_name: Option<AapName>) -> Result<()> {
    let reply = ask!(api, ListClientKeys, ListClientKeysRequest { aap_name, timeout_ms: None });
    if api.json {
        return output::json(&reply);
    }
    let mut rows = Rows::new(&["client key", "access point", "algorithm", "taken from", "taken until"]);
    for row in reply.client_keys {
        let algorithm = row.key_algorithm.name();
        rows.add(&[&row.client_key_id, &row.aap_name, &algorithm, &row.not_before, &row.not_after]);
    }
    rows.print("no client keys; `keymill aap key create AAP --out FILE` makes one")
}
