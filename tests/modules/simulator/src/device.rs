//! The state of the simulated HSM that the real one does not show: session handles, live objects, presence, login.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, RwLock};

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_SESSION_COUNT, CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_PRESENT,
};

use crate::control::Settings;

/// A session of the module. Calls that were waiting when it ended still hold it, and see that.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) module: CK_SESSION_HANDLE,
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) open: RwLock<bool>,
    pub(crate) busy: AtomicU32,
}

/// An object that a call has made, as its template says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) object: CK_OBJECT_HANDLE,
    pub(crate) on_token: bool,
    pub(crate) private: bool,
}

/// What the application sees of the HSM.
#[derive(Debug, Default)]
pub(crate) struct Device {
    pub(crate) sessions: BTreeMap<CK_SESSION_HANDLE, Arc<Session>>,
    pub(crate) objects: HashMap<CK_OBJECT_HANDLE, (CK_SESSION_HANDLE, Made)>,
    pub(crate) login_lost: bool,
    pub(crate) removed: Option<CK_RV>,
    pub(crate) slot_shift: CK_SLOT_ID,
    last: CK_SESSION_HANDLE,
    sessions_to_come: usize,
    objects_to_come: usize,
}

impl Device {
    /// Returns a session, or the code of one that is not there.
    pub(crate) fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>, CK_RV> {
        self.sessions.get(&handle).cloned().ok_or(self.removed.unwrap_or(CKR_SESSION_HANDLE_INVALID))
    }

    /// Refuses where the token is out.
    pub(crate) fn present(&self) -> Result<(), CK_RV> {
        self.removed.map_or(Ok(()), Err)
    }

    /// Takes a place for a session that is about to be opened.
    pub(crate) fn reserve_session(&mut self, settings: &Settings) -> Result<(), CK_RV> {
        self.present()?;
        if settings.session_limit.is_some_and(|limit| self.sessions.len() + self.sessions_to_come >= limit) {
            return Err(settings.session_limit_code.map_or(CKR_SESSION_COUNT, |code| code.0));
        }
        self.sessions_to_come += 1;
        Ok(())
    }

    /// Gives the place to the session, if it could be opened; returns its handle.
    pub(crate) fn opened(
        &mut self,
        session: Option<Session>,
        settings: &Settings,
    ) -> Option<CK_SESSION_HANDLE> {
        self.sessions_to_come -= 1;
        let session = session?;
        let handle = if settings.reuse_session_handles {
            // The map is in order, so the first gap is where place and handle part.
            let gap = self.sessions.keys().zip(1..).find(|(handle, place)| **handle != *place);
            gap.map_or(self.sessions.len() as CK_SESSION_HANDLE + 1, |(_, place)| place)
        } else {
            self.last + 1
        };
        self.last = self.last.max(handle);
        self.sessions.insert(handle, Arc::new(session));
        Some(handle)
    }

    /// Forgets a session and what it owned.
    pub(crate) fn closed(&mut self, handle: CK_SESSION_HANDLE) {
        self.sessions.remove(&handle);
        self.objects.retain(|_, (owner, _)| *owner != handle);
    }

    /// Takes places for objects that are about to be made.
    pub(crate) fn reserve_objects(&mut self, count: usize, settings: &Settings) -> Result<(), CK_RV> {
        let live = self.objects.len() + self.objects_to_come;
        if settings.object_limit.is_some_and(|limit| live + count > limit) {
            return Err(settings.object_limit_code.map_or(cryptoki_sys::CKR_DEVICE_MEMORY, |code| code.0));
        }
        self.objects_to_come += count;
        Ok(())
    }

    /// Gives the places to the objects that live only as long as their session.
    pub(crate) fn made(&mut self, owner: CK_SESSION_HANDLE, count: usize, made: impl Iterator<Item = Made>) {
        self.objects_to_come -= count;
        self.objects.extend(made.filter(|made| !made.on_token).map(|made| (made.object, (owner, made))));
    }

    /// Forgets what a user's logout takes along.
    pub(crate) fn logged_out(&mut self) {
        self.objects.retain(|_, (_, made)| !made.private);
    }

    /// Starts anew, as after C_Finalize: handles begin at 1 again.
    pub(crate) fn reset(&mut self) {
        self.sessions.clear();
        self.objects.clear();
        self.login_lost = false;
        self.last = 0;
    }

    /// Takes over whether the token is in, and where.
    pub(crate) fn placed(&mut self, settings: &Settings) {
        self.removed =
            settings.removed.then(|| settings.removed_code.map_or(CKR_TOKEN_NOT_PRESENT, |code| code.0));
        self.slot_shift = settings.slot_shift as CK_SLOT_ID;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Option<Session> {
        Some(Session { module: 9, slot: 0, open: RwLock::new(true), busy: AtomicU32::new(0) })
    }

    fn open(device: &mut Device, settings: &Settings) -> Option<CK_SESSION_HANDLE> {
        device.reserve_session(settings).ok()?;
        device.opened(session(), settings)
    }

    #[test]
    fn handles_rise_and_are_given_out_again_only_where_asked() {
        let (mut device, mut settings) = (Device::default(), Settings::default());
        let handles: Vec<_> = (0..3).filter_map(|_| open(&mut device, &settings)).collect();
        assert_eq!(handles, [1, 2, 3]);
        device.closed(2);
        assert_eq!(open(&mut device, &settings), Some(4));
        settings.reuse_session_handles = true;
        assert_eq!(open(&mut device, &settings), Some(2));
        assert_eq!(open(&mut device, &settings), Some(5));
        device.reset();
        assert_eq!(open(&mut device, &Settings::default()), Some(1));
    }

    #[test]
    fn a_place_that_was_not_used_is_free_again() {
        let settings = Settings { session_limit: Some(1), object_limit: Some(2), ..Settings::default() };
        let mut device = Device::default();
        device.reserve_session(&settings).unwrap();
        assert_eq!(device.reserve_session(&settings), Err(CKR_SESSION_COUNT));
        assert_eq!(device.opened(None, &settings), None);
        assert_eq!(open(&mut device, &settings), Some(1));

        device.reserve_objects(2, &settings).unwrap();
        device.reserve_objects(1, &settings).unwrap_err();
        let made = |object, private| Made { object, on_token: object == 3, private };
        device.made(1, 2, [made(3, true), made(4, true)].into_iter());
        assert_eq!(device.objects.len(), 1, "a token object takes no session memory");
        device.reserve_objects(1, &settings).unwrap();
        device.made(1, 1, [made(5, false)].into_iter());
        device.logged_out();
        assert_eq!(device.objects.keys().collect::<Vec<_>>(), [&5]);
        device.closed(1);
        assert!(device.objects.is_empty());
    }
}
