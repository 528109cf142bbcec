//! One instance: every call passes here on its way from the application to the module. A call first sees what the control
//! file says now, then what befalls it, then waits its turn, and only then looks whether its session still lives.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys::*;

use crate::device::{Device, Made, Session};
use crate::ffi::{self, Function, Module};
use crate::pace::{Cost, Pace};
use crate::stats::{Report, Stats};
use crate::watch::{Current, Watch};

/// Functions that a library answers by itself: they cost nothing.
const LOCAL: &[Function] =
    &[Function::C_Initialize, Function::C_Finalize, Function::C_GetInfo, Function::C_WaitForSlotEvent];

/// Functions on a session that do not need the user's login.
const PUBLIC: &[&str] = &[
    "C_CloseSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_LoginUser",
    "C_Logout",
    "C_InitPIN",
    "C_SessionCancel",
    "C_GenerateRandom",
    "C_SeedRandom",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GetFunctionStatus",
    "C_CancelFunction",
];

/// How often the control file is looked at while no call does so.
const TICK: Duration = Duration::from_millis(20);
/// How often statistics are written while calls come in.
const STATS_EVERY: Duration = Duration::from_millis(100);

/// A simulated HSM. There is one for each file that the library is loaded from.
pub(crate) struct Simulator {
    watch: Watch,
    pace: Pace,
    stats: Stats,
    device: Mutex<Device>,
    /// Whether the module is initialised. Held for reading while the module is called, for writing by what ends sessions.
    running: RwLock<bool>,
    module: OnceLock<Module>,
    loading: Mutex<()>,
    /// The module's slot of the one token that shows, once it was found. SoftHSM aborts where two threads list its slots at once, so they
    /// take turns here, and mostly need not.
    own_slot: Mutex<Option<CK_SLOT_ID>>,
    ticker: OnceLock<()>,
}

/// Returns this library's instance.
pub(crate) fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| Simulator {
        watch: Watch::new(&ffi::own_file()),
        pace: Pace::default(),
        stats: Stats::new(),
        device: Mutex::default(),
        running: RwLock::new(false),
        module: OnceLock::new(),
        loading: Mutex::default(),
        own_slot: Mutex::default(),
        ticker: OnceLock::new(),
    })
}

/// Lets a call through whatever happens inside, and counts how it ended.
pub(crate) fn counted(
    function: Function,
    call: impl FnOnce(&'static Simulator, &Current) -> Result<CK_RV, CK_RV>,
) -> CK_RV {
    let sim = simulator();
    let _in_flight = sim.stats.enter();
    // A panic must not cross into C; the state behind the locks is only counters and handles.
    let outcome = catch_unwind(AssertUnwindSafe(|| call(sim, &sim.now()).unwrap_or_else(|code| code)));
    let code = outcome.unwrap_or_else(|_| {
        sim.stats.panics.fetch_add(1, Relaxed);
        CKR_GENERAL_ERROR
    });
    sim.stats.count(function, code);
    code
}

/// Passes a call on a session to the module.
pub(crate) fn on_session(
    function: Function,
    handle: CK_SESSION_HANDLE,
    call: impl FnOnce(&Module, CK_SESSION_HANDLE) -> CK_RV,
) -> CK_RV {
    counted(function, |sim, now| {
        let session = sim.session(handle)?;
        sim.paced(function, now, || sim.within(function, &session, call))
    })
}

/// Passes on a call that makes objects; the module's answer comes with them.
pub(crate) fn making(
    function: Function,
    handle: CK_SESSION_HANDLE,
    count: usize,
    call: impl FnOnce(&Module, CK_SESSION_HANDLE) -> (CK_RV, [Option<Made>; 2]),
) -> CK_RV {
    counted(function, |sim, now| {
        let session = sim.session(handle)?;
        sim.paced(function, now, || {
            sim.device().reserve_objects(count, &now.settings)?;
            let mut made = [None; 2];
            let code = sim.within(function, &session, |module, session| {
                let code;
                (code, made) = call(module, session);
                code
            });
            let mut device = sim.device();
            device.made(handle, count, made.into_iter().flatten());
            sim.stats.objects_peak.fetch_max(device.objects.len() as u64, Relaxed);
            code
        })
    })
}

/// Passes on a call on a slot.
pub(crate) fn on_slot(
    function: Function,
    slot: CK_SLOT_ID,
    call: impl FnOnce(&Module, CK_SLOT_ID) -> CK_RV,
) -> CK_RV {
    counted(function, |sim, now| {
        sim.paced(function, now, || {
            let (module, _running) = sim.running()?;
            Ok(call(module, sim.module_slot(slot, now, module)?))
        })
    })
}

impl Simulator {
    /// Returns the module, loaded at the first use that finds it.
    pub(crate) fn module(&self) -> Result<&Module, CK_RV> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let settings = &self.watch.current().settings;
        let path =
            settings.module.clone().or_else(|| std::env::var_os("KEYMILL_SIM_MODULE").map(PathBuf::from));
        let loaded = path
            .ok_or_else(|| "no module: name it in the control file or in KEYMILL_SIM_MODULE".to_owned())
            .and_then(|path| {
                // Before the module is there to read it.
                settings.env.iter().for_each(|(name, value)| crate::ffi::set_env(name, value));
                Module::load(&path, !settings.shared_module)
            });
        match loaded {
            Ok(module) => Ok(self.module.get_or_init(|| module)),
            Err(error) => {
                self.watch.complain(&error);
                Err(CKR_GENERAL_ERROR)
            }
        }
    }

    /// Returns what holds for a call: what the file says now, or where a test can wait, what it said at the last tick.
    fn now(&self) -> Arc<Current> {
        let current = self.watch.current();
        let ticks = self.ticker.get().is_some() && current.settings.lazy_control;
        if ticks { current } else { self.refreshed() }
    }

    /// Returns what the control file says now, with all events that it tells of done.
    pub(crate) fn refreshed(&self) -> Arc<Current> {
        self.watch.refreshed(|before, after| {
            let (old, new) = (&before.settings, &after.settings);
            let moved = new.removed && !old.removed || new.slot_shift != old.slot_shift;
            let lost_login = new.lose_login > old.lose_login;
            // While no call is inside the module, sessions can be taken away from under it.
            let running = self.quiet();
            let mut device = self.device();
            device.placed(new);
            let Some(module) = self.module.get().filter(|_| *running) else { return };
            if (moved || lost_login)
                && let Some(session) = device.sessions.values().next()
            {
                module.logout(session.module);
                device.logged_out();
            }
            device.login_lost |= lost_login;
            if moved || new.lose_sessions > old.lose_sessions {
                close_all(&mut device, module, |_| true);
            }
        })
    }

    /// Lets the call's fault strike and the call wait for its turn; answers in the fault's place or the module's.
    pub(crate) fn paced(
        &self,
        function: Function,
        now: &Current,
        call: impl FnOnce() -> Result<CK_RV, CK_RV>,
    ) -> Result<CK_RV, CK_RV> {
        let name = function.name();
        let strike = now.faults.strike(name).unwrap_or_default();
        if !strike.hang.is_zero() {
            thread::sleep(strike.hang);
        }
        if strike.abort {
            self.report().write(&self.watch.stats_file());
            ffi::crash();
        }
        let answer = || match strike.answer {
            Some(code) if !strike.after => Ok(code),
            Some(code) => call().map(|_| code),
            None => call(),
        };
        if LOCAL.contains(&function) || now.settings.is_free(name) {
            return answer();
        }
        let cost = Cost {
            engines: now.settings.engines,
            calls_per_s: now.settings.calls_per_s,
            latency: now.settings.latency(name),
            exclusive: now.settings.is_exclusive(name),
        };
        self.pace.run(&cost, answer)
    }

    /// Calls the module on a session, if that still lives.
    pub(crate) fn within(
        &self,
        function: Function,
        session: &Session,
        call: impl FnOnce(&Module, CK_SESSION_HANDLE) -> CK_RV,
    ) -> Result<CK_RV, CK_RV> {
        let (module, _running) = self.running()?;
        let open = session.open.read().unwrap_or_else(PoisonError::into_inner);
        {
            let device = self.device();
            if !*open {
                return Err(device.removed.unwrap_or(CKR_SESSION_HANDLE_INVALID));
            }
            if device.login_lost && !PUBLIC.contains(&function.name()) {
                return Err(CKR_USER_NOT_LOGGED_IN);
            }
        }
        if session.busy.fetch_add(1, Relaxed) > 0 {
            self.stats.overlaps.fetch_add(1, Relaxed);
        }
        let code = call(module, session.module);
        session.busy.fetch_sub(1, Relaxed);
        Ok(code)
    }

    pub(crate) fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>, CK_RV> {
        drop(self.running()?);
        self.device().session(handle)
    }

    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the module for a call; it stays initialised while the guard lives.
    pub(crate) fn running(&self) -> Result<(&Module, RwLockReadGuard<'_, bool>), CK_RV> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        if *running { Ok((self.module()?, running)) } else { Err(CKR_CRYPTOKI_NOT_INITIALIZED) }
    }

    /// Waits until no call is inside the module, and keeps it so while the guard lives.
    pub(crate) fn quiet(&self) -> RwLockWriteGuard<'_, bool> {
        self.running.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the module's own number of a slot that the application may see.
    pub(crate) fn module_slot(
        &self,
        slot: CK_SLOT_ID,
        now: &Current,
        module: &Module,
    ) -> Result<CK_SLOT_ID, CK_RV> {
        let shift = {
            let device = self.device();
            device.present()?;
            device.slot_shift
        };
        let slot = slot.wrapping_sub(shift);
        if now.settings.only_token.is_some() && !self.visible(now, module, 0)?.contains(&slot) {
            return Err(CKR_SLOT_ID_INVALID);
        }
        Ok(slot)
    }

    /// Returns the slots, by the module's numbers, that this instance stands for: that of its token; before that exists,
    /// those where it can be made.
    pub(crate) fn visible(
        &self,
        now: &Current,
        module: &Module,
        with_token: CK_BBOOL,
    ) -> Result<Vec<CK_SLOT_ID>, CK_RV> {
        let mut own_slot = self.own_slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(label) = &now.settings.only_token else { return module.slots(with_token) };
        if let Some(slot) = *own_slot {
            return Ok(vec![slot]);
        }
        let slots = module.slots(with_token)?;
        let tokens: Vec<_> =
            slots.iter().filter_map(|slot| Some((*slot, module.token(*slot).ok()?))).collect();
        let own = tokens.iter().filter(|(_, (name, initialised))| *initialised && name == label);
        let own: Vec<_> = own.map(|(slot, _)| *slot).collect();
        if let [slot] = own[..] {
            *own_slot = Some(slot);
        }
        if !own.is_empty() {
            return Ok(own);
        }
        Ok(tokens.iter().filter(|(_, (_, initialised))| !initialised).map(|(slot, _)| *slot).collect())
    }

    /// Begins the module's use.
    pub(crate) fn initialize(
        &'static self,
        now: &Current,
        begin: impl FnOnce(&Module) -> CK_RV,
    ) -> Result<CK_RV, CK_RV> {
        if !now.ever_read {
            return Err(CKR_GENERAL_ERROR);
        }
        // Loaded before all is quiet: it looks at the control file, whose reader may wait for quiet.
        let module = self.module()?;
        let mut running = self.quiet();
        if *running {
            return Err(CKR_CRYPTOKI_ALREADY_INITIALIZED);
        }
        let code = begin(module);
        if code == CKR_OK {
            *running = true;
            self.device().placed(&now.settings);
            self.stats.initialisations.fetch_add(1, Relaxed);
            self.ticker.get_or_init(|| {
                let ticker = thread::Builder::new().name("simulator".to_owned());
                ticker.spawn(|| self.tick()).expect("a thread for statistics can be started");
            });
        }
        Ok(code)
    }

    /// Ends the module's use.
    pub(crate) fn finalize(&self) -> Result<CK_RV, CK_RV> {
        let mut running = self.quiet();
        if !*running {
            return Err(CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        let code = self.module()?.finalize();
        if code == CKR_OK {
            *self.own_slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let mut device = self.device();
            for session in device.sessions.values() {
                *session.open.write().unwrap_or_else(PoisonError::into_inner) = false;
            }
            device.reset();
            *running = false;
        }
        Ok(code)
    }

    /// Opens a session on the slot; `open` gives the module's answer and handle.
    pub(crate) fn open_session(
        &self,
        slot: CK_SLOT_ID,
        now: &Current,
        open: impl FnOnce(&Module, CK_SLOT_ID) -> Result<CK_SESSION_HANDLE, CK_RV>,
    ) -> Result<CK_SESSION_HANDLE, CK_RV> {
        let (module, _running) = self.running()?;
        let slot = self.module_slot(slot, now, module)?;
        self.device().reserve_session(&now.settings)?;
        let opened = open(module, slot);
        let session = opened.map(|module| Session {
            module,
            slot,
            open: RwLock::new(true),
            busy: std::sync::atomic::AtomicU32::new(0),
        });
        let mut device = self.device();
        let failed = session.as_ref().err().copied();
        let handle = device.opened(session.ok(), &now.settings);
        self.stats.sessions_peak.fetch_max(device.sessions.len() as u64, Relaxed);
        match (handle, failed) {
            (Some(handle), _) => {
                self.stats.sessions_opened.fetch_add(1, Relaxed);
                Ok(handle)
            }
            (None, code) => Err(code.unwrap_or(CKR_GENERAL_ERROR)),
        }
    }

    /// Closes one session, when its calls have come back.
    pub(crate) fn close_session(&self, handle: CK_SESSION_HANDLE, session: &Session) -> Result<CK_RV, CK_RV> {
        let (module, _running) = self.running()?;
        let mut open = session.open.write().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Err(self.device().removed.unwrap_or(CKR_SESSION_HANDLE_INVALID));
        }
        let code = module.close_session(session.module);
        if code == CKR_OK {
            *open = false;
            self.device().closed(handle);
        }
        Ok(code)
    }

    /// Closes the sessions on a slot.
    pub(crate) fn close_all_sessions(&self, slot: CK_SLOT_ID, now: &Current) -> Result<CK_RV, CK_RV> {
        let running = self.quiet();
        if !*running {
            return Err(CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        let module = self.module()?;
        let slot = self.module_slot(slot, now, module)?;
        close_all(&mut self.device(), module, |session| session.slot == slot);
        Ok(CKR_OK)
    }

    /// Tries a login; the user's wrong PINs are counted and lock it, whatever the module thinks of them.
    pub(crate) fn login(
        &self,
        user: CK_USER_TYPE,
        now: &Current,
        login: impl FnOnce() -> Result<CK_RV, CK_RV>,
    ) -> Result<CK_RV, CK_RV> {
        self.stats.logins.fetch_add(1, Relaxed);
        let limit = now.settings.pin_lock_after.unwrap_or(u32::MAX);
        if user == CKU_USER && self.watch.wrong_pins() >= limit {
            return Err(CKR_PIN_LOCKED);
        }
        let code = login()?;
        match code {
            CKR_OK => {
                self.device().login_lost = false;
                if user == CKU_USER {
                    self.watch.set_wrong_pins(0);
                }
            }
            CKR_PIN_INCORRECT if user == CKU_USER => {
                let wrong = self.watch.wrong_pins() + 1;
                self.watch.set_wrong_pins(wrong);
                if wrong >= limit {
                    return Err(CKR_PIN_LOCKED);
                }
            }
            _ => {}
        }
        Ok(code)
    }

    /// Forgets wrong PINs, as when the security officer has set a new one.
    pub(crate) fn unlock_pin(&self) {
        self.watch.set_wrong_pins(0);
    }

    /// Returns what a token shows of its PIN tries.
    pub(crate) fn pin_flags(&self, now: &Current) -> CK_FLAGS {
        let Some(limit) = now.settings.pin_lock_after else { return 0 };
        match self.watch.wrong_pins() {
            0 => 0,
            wrong if wrong >= limit => CKF_USER_PIN_LOCKED,
            wrong if wrong + 1 == limit => CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY,
            _ => CKF_USER_PIN_COUNT_LOW,
        }
    }

    fn tick(&self) {
        let mut written = Report::default();
        let mut last = Instant::now();
        loop {
            thread::sleep(TICK);
            let revision = self.refreshed().settings.revision;
            if revision == written.revision && last.elapsed() < STATS_EVERY {
                continue;
            }
            last = Instant::now();
            let report = self.report();
            if report != written {
                report.write(&self.watch.stats_file());
                written = report;
            }
        }
    }

    fn report(&self) -> Report {
        let current = self.watch.current();
        let stats = &self.stats;
        let initialised = *self.running.read().unwrap_or_else(PoisonError::into_inner);
        let device = self.device();
        Report {
            instance: self.watch.instance.clone(),
            pid: std::process::id(),
            revision: current.settings.revision,
            control_error: current.error.clone(),
            initialisations: stats.initialisations.load(Relaxed),
            initialised,
            sessions: device.sessions.len(),
            sessions_opened: stats.sessions_opened.load(Relaxed),
            sessions_peak: stats.sessions_peak.load(Relaxed),
            objects: device.objects.len(),
            objects_peak: stats.objects_peak.load(Relaxed),
            logins: stats.logins.load(Relaxed),
            wrong_pins: self.watch.wrong_pins(),
            in_flight: stats.in_flight.load(Relaxed),
            in_flight_peak: stats.in_flight_peak.load(Relaxed),
            overlaps: stats.overlaps.load(Relaxed),
            panics: stats.panics.load(Relaxed),
            faults: current.faults.struck(),
            calls: stats.calls(),
        }
    }
}

fn close_all(device: &mut Device, module: &Module, which: impl Fn(&Session) -> bool) {
    let ending: Vec<_> =
        device.sessions.iter().filter(|(_, session)| which(session)).map(|(h, _)| *h).collect();
    for handle in ending {
        if let Ok(session) = device.session(handle) {
            *session.open.write().unwrap_or_else(PoisonError::into_inner) = false;
            module.close_session(session.module);
        }
        device.closed(handle);
    }
}
