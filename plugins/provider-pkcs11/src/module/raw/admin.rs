//! Slots, tokens, sessions, login.

use std::ptr;

use cryptoki_sys::*;
use keymill_core::Sensitive;

use super::{call, written};
use crate::module::{Failure, Module, Rv, Session, User, capped};

/// Slots that a module is asked for, at most.
const MAX_SLOTS: usize = 1024;
/// Mechanisms that a module is asked for, at most; the largest list seen has 174.
const MAX_MECHANISMS: usize = 1024;

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// The label, by which a token is known: slots are numbered anew at whim.
    pub label: String,
    /// Who made it.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The version of its firmware.
    pub firmware: String,
    /// Whether it has been initialised.
    pub initialized: bool,
    /// Whether the user's PIN has been set.
    pub pin_set: bool,
    /// Whether one more wrong PIN locks it.
    pub pin_final_try: bool,
    /// Whether its PIN is locked.
    pub pin_locked: bool,
    /// Whether its keys want a login.
    pub login_required: bool,
    /// Sessions that are open now, where it says so.
    pub open_sessions: Option<usize>,
    /// Sessions that it gives, where it says so.
    pub max_sessions: Option<usize>,
}

/// What a module says of itself, for whoever talks to its vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub description: String,
    /// Its version.
    pub version: String,
    /// The version of PKCS#11 that it follows.
    pub cryptoki: String,
}

/// Reads a field of text, which is filled up with blanks.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

impl TokenInfo {
    fn new(info: &CK_TOKEN_INFO) -> Self {
        let flag = |flag| info.flags & flag != 0;
        Self {
            label: text(&info.label),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            serial: text(&info.serialNumber),
            firmware: version(info.firmwareVersion),
            initialized: flag(CKF_TOKEN_INITIALIZED),
            pin_set: flag(CKF_USER_PIN_INITIALIZED),
            pin_final_try: flag(CKF_USER_PIN_FINAL_TRY),
            pin_locked: flag(CKF_USER_PIN_LOCKED),
            login_required: flag(CKF_LOGIN_REQUIRED),
            open_sessions: match info.ulSessionCount {
                CK_UNAVAILABLE_INFORMATION => None,
                count => usize::try_from(count).ok(),
            },
            max_sessions: match info.ulMaxSessionCount {
                CK_EFFECTIVELY_INFINITE | CK_UNAVAILABLE_INFORMATION => None,
                limit => usize::try_from(limit).ok(),
            },
        }
    }
}

pub(crate) fn open_session(
    module: &Module,
    slot: CK_SLOT_ID,
    writes: bool,
    generation: u64,
) -> Result<CK_SESSION_HANDLE, Failure> {
    let flags = CKF_SERIAL_SESSION | if writes { CKF_RW_SESSION } else { 0 };
    let mut handle = 0;
    module.enter_slot("C_OpenSession", generation, |table| {
        call!(table.base, C_OpenSession(slot, flags, ptr::null_mut(), None, &mut handle))
    })?;
    Ok(handle)
}

pub(crate) fn close_session(session: &Session) -> Result<(), Failure> {
    session.enter("C_CloseSession", |table| call!(table.base, C_CloseSession(session.handle)))
}

impl Module {
    /// Asks the module for what it says of itself.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetInfo`.
    pub fn info(&self) -> Result<LibraryInfo, Failure> {
        let mut info = CK_INFO::default();
        self.now("C_GetInfo", |table| call!(table.base, C_GetInfo(&mut info)))?;
        Ok(LibraryInfo {
            manufacturer: text(&info.manufacturerID),
            description: text(&info.libraryDescription),
            version: version(info.libraryVersion),
            cryptoki: version(info.cryptokiVersion),
        })
    }

    /// Lists the slots that hold a token.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetSlotList`.
    pub fn slots(&self) -> Result<Vec<CK_SLOT_ID>, Failure> {
        let name = "C_GetSlotList";
        let _alone = self.alone_with_slots(name)?;
        // The one query for a length: PKCS#11 lets a module notice new slots and tokens by it alone.
        let mut count = 0;
        self.now(name, |table| call!(table.base, C_GetSlotList(CK_TRUE, ptr::null_mut(), &mut count)))?;
        let mut slots = vec![0; MAX_SLOTS];
        let mut count = slots.len() as CK_ULONG;
        self.now(name, |table| call!(table.base, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count)))?;
        slots.truncate(written(name, count, slots.len())?);
        Ok(slots)
    }

    /// Asks a token for what it says of itself.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetTokenInfo`.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<TokenInfo, Failure> {
        let mut info = CK_TOKEN_INFO::default();
        self.now_in_slot("C_GetTokenInfo", |table| call!(table.base, C_GetTokenInfo(slot, &mut info)))?;
        Ok(TokenInfo::new(&info))
    }

    /// Lists the mechanisms of a token, those without a name among them.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetMechanismList`.
    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, Failure> {
        let name = "C_GetMechanismList";
        let mut list = vec![0; MAX_MECHANISMS];
        let mut count = list.len() as CK_ULONG;
        self.now_in_slot(name, |table| {
            call!(table.base, C_GetMechanismList(slot, list.as_mut_ptr(), &mut count))
        })?;
        list.truncate(written(name, count, list.len())?);
        Ok(list)
    }

    /// Asks what a mechanism takes: its smallest and largest key, and its flags.
    ///
    /// # Errors
    /// [`Failure`] of `C_GetMechanismInfo`.
    pub fn mechanism_info(
        &self,
        slot: CK_SLOT_ID,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Failure> {
        let mut info = CK_MECHANISM_INFO::default();
        self.now_in_slot("C_GetMechanismInfo", |table| {
            call!(table.base, C_GetMechanismInfo(slot, mechanism, &mut info))
        })?;
        Ok(info)
    }

    /// Makes a token of the slot: whatever it held is gone.
    ///
    /// # Errors
    /// [`Failure`] of `C_InitToken`.
    pub fn init_token(&self, slot: CK_SLOT_ID, so_pin: &Sensitive, label: &str) -> Result<(), Failure> {
        // 32 bytes, filled up with blanks; the caller has checked that the label fits.
        let mut padded = [b' '; 32];
        let len = label.len().min(padded.len());
        padded[..len].copy_from_slice(&label.as_bytes()[..len]);
        let pin = so_pin.expose();
        let name = "C_InitToken";
        let _alone = self.alone_with_slots(name)?;
        self.now(name, |table| {
            call!(
                table.base,
                C_InitToken(slot, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG, padded.as_mut_ptr())
            )
        })
    }
}

impl Session {
    /// Sets the user's PIN; the security officer must be logged in.
    ///
    /// # Errors
    /// [`Failure`] of `C_InitPIN`.
    pub fn init_pin(&self, pin: &Sensitive) -> Result<(), Failure> {
        let pin = pin.expose();
        self.enter("C_InitPIN", |table| {
            call!(table.base, C_InitPIN(self.handle, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG))
        })
    }

    /// Changes the user's PIN, in a session that writes; the user must be logged in, or the token takes it without.
    ///
    /// # Errors
    /// [`Failure`] of `C_SetPIN`.
    pub fn set_pin(&self, old: &Sensitive, new: &Sensitive) -> Result<(), Failure> {
        let (old, new) = (old.expose(), new.expose());
        self.enter("C_SetPIN", |table| {
            call!(
                table.base,
                C_SetPIN(
                    self.handle,
                    old.as_ptr().cast_mut(),
                    old.len() as CK_ULONG,
                    new.as_ptr().cast_mut(),
                    new.len() as CK_ULONG
                )
            )
        })
    }

    /// Logs in, for all sessions of the token in this process.
    ///
    /// # Errors
    /// [`Failure`] of `C_Login`.
    pub fn login(&self, user: User, pin: &Sensitive) -> Result<(), Failure> {
        let user = match user {
            User::User => CKU_USER,
            User::SecurityOfficer => CKU_SO,
        };
        let pin = pin.expose();
        self.enter("C_Login", |table| {
            call!(table.base, C_Login(self.handle, user, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG))
        })
    }

    /// Logs out, for all sessions of the token in this process; private session objects are gone then.
    ///
    /// # Errors
    /// [`Failure`] of `C_Logout`.
    pub fn logout(&self) -> Result<(), Failure> {
        self.enter("C_Logout", |table| call!(table.base, C_Logout(self.handle)))
    }

    /// Checks that the user is logged in: without that a search finds no private object, and says nothing of why (PKCS#11 v3.1, 5.7.7).
    ///
    /// # Errors
    /// [`Failure`] of `C_GetSessionInfo`; `CKR_USER_NOT_LOGGED_IN` in its name where the session is a public one.
    pub fn check_login(&self) -> Result<(), Failure> {
        let call = "C_GetSessionInfo";
        let mut info = CK_SESSION_INFO::default();
        self.enter(call, |table| call!(table.base, C_GetSessionInfo(self.handle, &mut info)))?;
        match info.state {
            CKS_RO_USER_FUNCTIONS | CKS_RW_USER_FUNCTIONS => Ok(()),
            _ => Err(Failure::Returned { call, rv: Rv(CKR_USER_NOT_LOGGED_IN) }),
        }
    }

    /// Fills `out` with random bytes of the token.
    ///
    /// # Errors
    /// [`Failure`] of `C_GenerateRandom`.
    pub fn random(&self, out: &mut [u8]) -> Result<(), Failure> {
        let name = "C_GenerateRandom";
        capped(name, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        self.enter(name, |table| {
            call!(table.base, C_GenerateRandom(self.handle, out.as_mut_ptr(), out.len() as CK_ULONG))
        })
    }

    /// Ends whatever operation the session has under way, by PKCS#11 3.0.
    ///
    /// # Errors
    /// `Missing` where the module is older.
    pub fn cancel(&self) -> Result<(), Failure> {
        let every = CKF_ENCRYPT | CKF_DECRYPT | CKF_SIGN | CKF_VERIFY | CKF_MESSAGE_ENCRYPT;
        self.enter("C_SessionCancel", |table| call!(table.v3.as_ref()?, C_SessionCancel(self.handle, every)))
    }
}
