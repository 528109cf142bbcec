//! Login tokens at the gate: made of a client key by its application, and let in by their own secret.

use std::time::Duration;

use keymill_core::access::{Principal, Resource};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::operation::{CreateLoginTokenReply, CreateLoginTokenRequest, Operation, Reply};
use keymill_core::seam::auth::AuthError;
use keymill_crypto::login_token::{TokenClaims, is_signed_with};
use keymill_crypto::random;

use super::Gate;
use crate::work::Job;

impl Gate {
    /// Makes a token of the client key that the caller logged in with.
    pub(super) fn create_login_token(
        &self,
        job: &mut Job,
        r: CreateLoginTokenRequest,
    ) -> Result<Reply<'static>> {
        self.require(job, Operation::CreateLoginToken, Resource::Nothing)?;
        let seconds = r.seconds()?;
        let Principal { access_key, aap, until } = &job.call.principal;
        if until.is_some() {
            return Err(Error::new(ErrorKind::Denied, "a login token makes no other"));
        }
        let access = self.0.shared.access.read();
        let key = aap.as_ref().and_then(|_| access.client_key(access_key)).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "a login token is made of a client key, and of no access key")
        })?;
        if key.certificate.is_some() {
            let why = "a login token is made of a client key that signs: it would outlive a certificate's revocation";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        let not_after = self.now().plus(Duration::from_secs(seconds.into())).min(key.not_after);
        let claims = TokenClaims { id: random::array()?, client_key: (**access_key).clone(), not_after };
        let made = self.0.shared.login_tokens.issue(&claims);
        let secret = std::str::from_utf8(made.secret.expose());
        Ok(Reply::CreateLoginToken(CreateLoginTokenReply {
            token: made.token,
            secret: secret.map_err(|_| Error::internal("the secret of a token is no text"))?.to_owned(),
            not_after,
            request_id: job.call.request_id,
        }))
    }

    /// Tells who signed a text with the secret of a login token: the application of the client key that it was made of, until it ends.
    ///
    /// # Errors
    /// As of [`authenticate`](Self::authenticate).
    pub fn authenticate_token(
        &self,
        token: &str,
        signature: &[u8],
        signed: &[u8],
        source: Option<std::net::IpAddr>,
    ) -> Result<Principal> {
        let opened = self.0.shared.login_tokens.open(token);
        let id = opened.as_ref().map_or(token, |(claims, _)| claims.client_key.as_str());
        self.check_login(id, source).inspect_err(|error| self.refused_stranger(error.kind(), source))?;
        let known = self.0.shared.access.read();
        let outcome = match opened {
            None => Err(AuthError::Unknown),
            Some((_, secret)) if !is_signed_with(&secret, signed, signature) => Err(AuthError::Mismatch),
            Some((claims, _)) => match known.client_key(&claims.client_key) {
                None => Err(AuthError::Unknown),
                Some(key) => Ok(Principal {
                    until: Some(claims.not_after),
                    ..Principal::of_client_key(claims.client_key, key.aap.clone())
                }),
            },
        };
        self.let_in(&known, outcome, source)
    }
}
