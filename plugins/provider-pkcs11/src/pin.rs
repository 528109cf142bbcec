//! The change of the user's PIN on the user's own login, for a token that nobody serves just now, and for one that is being served.

use cryptoki_sys::CKR_USER_ALREADY_LOGGED_IN;
use keymill_core::Sensitive;
use keymill_core::seam::provider::ProviderError;

use crate::connect::{check_pin_state, find_token};
use crate::module::{Class, Failure, Session, User};
use crate::{OpenError, OpenErrorKind, Party, Pkcs11Provider};

/// A PIN that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPin {
    /// The token's label.
    pub token: String,
    /// Its serial number.
    pub serial: String,
}

/// Changes the user's PIN, and logs in with the new one to see that it is. The old one is tried once.
///
/// # Errors
/// [`OpenError`] where the old PIN is refused or not to be tried, or the token takes no such new one; the old one holds then, or the
/// error says otherwise.
pub fn change_pin(party: &Party, new: &Sensitive) -> Result<ChangedPin, OpenError> {
    let Party { module, token_label, token_serial, pin: old, .. } = party;
    module.initialize().map_err(OpenError::because("the module"))?;
    let (slot, info) = find_token(module, token_label, token_serial.as_deref())?;
    check_pin_state(&info)?;
    if old.expose() == new.expose() {
        return Err(OpenError::new(OpenErrorKind::Input, "the new PIN is the old one"));
    }
    let session = module.open_session(slot, true).map_err(OpenError::because("the token"))?;
    match session.login(User::User, old) {
        Ok(()) => {}
        // Where somebody of this process is logged in, C_SetPIN alone would try the old one.
        Err(failure) if failure.is(CKR_USER_ALREADY_LOGGED_IN) => {}
        Err(failure) => return Err(OpenError::because("the old PIN")(failure)),
    }
    session
        .set_pin(old, new)
        .map_err(OpenError::because("the new PIN is not taken, and the old one holds"))?;
    let token = info.label;
    verify(&session, new).map_err(|failure| {
        OpenError::new(
            OpenErrorKind::Pin,
            format!("token {token} took the new PIN, and then refused a login with it: {failure}"),
        )
    })?;
    Ok(ChangedPin { token, serial: info.serial })
}

/// Logs in anew: a token that took a PIN and knows another must not be found out at the next start.
fn verify(session: &Session, new: &Sensitive) -> Result<(), Failure> {
    session.logout()?;
    session.login(User::User, new)
}

impl Pkcs11Provider {
    /// Changes the user's PIN while the token is served: sessions go on as they are, and the new PIN is for the next login. It is not
    /// tried, as a logout would void every loaded key; the token has compared the old one, and says whether it took the new.
    ///
    /// # Errors
    /// `Rejected` where the token does not take the new PIN, or knows another old one; what was holds then, and nothing is locked out.
    /// `Unavailable` where the token is not there, or its PIN is not to be tried.
    pub fn change_pin(&self, new: &Sensitive) -> Result<(), ProviderError> {
        let mut refused = None;
        let changed = self.token.with_link(|link| {
            // A call that has failed on a connection that is gone is tried again; one that the token has answered is not.
            let info = self.token.module.token_info(link.slot)?;
            if let Err(refusal) = check_pin_state(&info) {
                refused = Some(ProviderError::unavailable(refusal.why));
                return Ok(());
            }
            let session = self.token.module.open_session(link.slot, true)?;
            let mut pin = self.token.pin.lock();
            match session.set_pin(&pin, new) {
                Ok(()) => *pin = Sensitive::copied(new.expose()),
                Err(failure) if failure.class() == Class::Pin => {
                    refused = Some(ProviderError::Rejected(format!("the new PIN is not taken: {failure}")));
                }
                Err(failure) => return Err(failure),
            }
            Ok(())
        });
        changed?;
        refused.map_or(Ok(()), Err)
    }
}
