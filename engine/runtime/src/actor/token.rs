//! The token actor, one a token: supervises its session threads and its control thread. It never calls into the module itself, so nothing
//! that hangs there hangs it: it gives such threads up, has their work done elsewhere, and starts others, up to a cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};

use super::control::ControlActor;
use super::regulator;
use super::session::SessionActor;
use crate::pool::chunk::{Home, Return, Tag};
use crate::pool::slot::{Abandoned, Slot};
use crate::pool::token::Token;
use crate::shared::Shared;

/// How often the actor looks at its threads.
const WATCH: Duration = Duration::from_millis(25);

/// Numbers for the names of threads.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Supervises the threads of one token.
pub(crate) struct TokenActor {
    shared: Arc<Shared>,
    token: Arc<Token>,
    /// Whether it looks again by itself: where the token is no part of the pool there is nothing to look at.
    is_watching: bool,
}

/// Says that the pool is to be another.
pub(crate) struct PoolChanged;

/// Takes the token out of service.
pub(crate) struct Drain;

/// Takes the token into service.
pub(crate) struct Enable;

impl Message for PoolChanged {
    type Result = ();
}

impl Message for Drain {
    type Result = ();
}

impl Message for Enable {
    type Result = ();
}

impl TokenActor {
    pub(crate) fn new(shared: Arc<Shared>, token: Arc<Token>) -> Self {
        Self { shared, token, is_watching: false }
    }

    /// Looks at the token, and goes on with that as long as there is something to look at.
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.settle();
        self.watch();
        self.is_watching = self.token.is_about() || self.has_control();
        if self.is_watching {
            ctx.run_later(WATCH, |actor, ctx| actor.look(ctx));
        }
    }

    /// Has the token have the sessions that are due on the way to what is wanted.
    fn settle(&self) {
        let (before, due) = (self.token.sessions(), self.shared.pool.due(&self.token));
        if before != due {
            tracing::info!(token = %self.token.config.name, before, sessions = due, "the token has other sessions in the pool");
            self.token.allow(due);
        }
    }

    /// Tells sessions that are too many so, those first that rest: each ends after the call that it is in.
    fn retire_surplus(&self, slots: &[Arc<Slot>], now: Instant) {
        let mut kept: Vec<_> = slots.iter().filter(|slot| !slot.is_retired()).collect();
        let surplus = kept.len().saturating_sub(self.token.sessions());
        if surplus == 0 {
            return;
        }
        kept.sort_by_key(|slot| slot.glance(now).joined);
        kept.iter().take(surplus).for_each(|slot| slot.retire());
        // Wherever they wait, they look whether they are wanted.
        self.token.shift.wake();
        self.shared.pool.lane.wake();
    }

    fn has_control(&self) -> bool {
        self.token.control.lock().as_ref().is_some_and(|slot| !slot.is_ended() && !slot.is_abandoned())
    }

    /// Looks at every thread: those in calls that hang are given up, those that ended are started again.
    fn watch(&mut self) {
        let now = Instant::now();
        // A copy: whoever looks at the token meanwhile finds its sessions.
        let mut slots = self.token.slots.lock().clone();
        regulator::look(&self.shared.pool, &self.token, &slots, now);
        for slot in &slots {
            if let Some(abandoned) = slot.abandon_if_hung(now) {
                give_up(
                    &self.shared,
                    &self.token,
                    abandoned,
                    Lane::Data,
                    "a call into the module does not return",
                );
                self.token.seems_slower();
            }
        }
        slots.retain(|slot| !slot.is_ended() && !slot.is_abandoned());
        self.retire_surplus(&slots, now);
        let room = self.token.config.max_abandoned.saturating_sub(self.token.hung());
        if self.shared.pool.is_stopped() {
            *self.token.slots.lock() = slots;
            return;
        }
        // Those that are told to end count until they have: there are never more than were wanted.
        while slots.len() < self.token.sessions().min(room) {
            let slot = Arc::new(Slot::new());
            let session =
                SessionActor { shared: self.shared.clone(), token: self.token.clone(), slot: slot.clone() };
            match session.start(THREADS.fetch_add(1, Ordering::Relaxed)) {
                Ok(_detached) => slots.push(slot),
                Err(error) => {
                    tracing::error!(token = %self.token.config.name, %error, "no thread for a session");
                    break;
                }
            }
        }
        *self.token.slots.lock() = slots;
        self.watch_control(now, room);
        self.shared.pool.refuse_stranded();
    }

    /// Looks at the control thread, and starts one where there is none.
    fn watch_control(&self, now: Instant, room: usize) {
        let mut control = self.token.control.lock();
        if let Some(abandoned) = control.as_ref().and_then(|slot| slot.abandon_if_hung(now)) {
            give_up(
                &self.shared,
                &self.token,
                abandoned,
                Lane::Control,
                "a call into the module does not return",
            );
        }
        let gone = control.as_ref().is_none_or(|slot| slot.is_ended() || slot.is_abandoned());
        let is_wanted = !self.token.is_out_of_pool() || self.token.is_connected();
        if !gone || room == 0 || !is_wanted {
            return;
        }
        let slot = Arc::new(Slot::new());
        let actor =
            ControlActor { shared: self.shared.clone(), token: self.token.clone(), slot: slot.clone() };
        match actor.start(THREADS.fetch_add(1, Ordering::Relaxed)) {
            Ok(_detached) => *control = Some(slot),
            Err(error) => tracing::error!(token = %self.token.config.name, %error, "no control thread"),
        }
    }
}

/// Which lane a thread of a token serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Data,
    Control,
}

/// Runs a thread of a token to its end, and sets right what it leaves behind: one that panicked is given up like one that hangs.
pub(super) fn watch_over(
    (shared, token, slot): (Arc<Shared>, Arc<Token>, Arc<Slot>),
    lane: Lane,
    run: impl FnOnce(),
) {
    // What the thread shared is behind locks that are not poisoned, and consistent between calls.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if outcome.is_err()
        && let Some(abandoned) = slot.abandon()
    {
        give_up(&shared, &token, abandoned, lane, "a thread of the token panicked");
    }
    if slot.is_abandoned() {
        token.abandoned.fetch_sub(1, Ordering::Relaxed);
    }
    // Maybe the last of them, which end the provider: before it is said that the thread is gone, since the process may end then.
    drop((shared, token));
    slot.set_ended();
}

/// Counts a thread out that is in a call which does not return, and has its chunks done elsewhere.
fn give_up(shared: &Arc<Shared>, token: &Arc<Token>, abandoned: Abandoned, lane: Lane, why: &str) {
    let Abandoned { held, joined, open, since, turn } = abandoned;
    // Others may have it: the call may never return.
    drop(turn);
    token.abandoned.fetch_add(1, Ordering::Relaxed);
    token.failed(None);
    let hung = token.hung();
    tracing::error!(token = %token.config.name, seconds = since.as_secs_f64(), chunks = held.len(), hung,
        "{why}: its thread is given up");
    match lane {
        Lane::Data => {
            if joined {
                token.shift.leave();
                shared.pool.lane.leave(token.at);
            }
            if open {
                token.closed(Some(why));
            }
        }
        Lane::Control if joined => shared.pool.control.leave(token.at),
        Lane::Control => {}
    }
    let mut by_home: Vec<(Arc<dyn Home>, Vec<Tag>)> = Vec::new();
    for (home, tag) in held {
        match by_home.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &home)) {
            Some((_, tags)) => tags.push(tag),
            None => by_home.push((home, vec![tag])),
        }
    }
    for (home, tags) in by_home {
        home.returned(tags.into_iter().map(Return::Lost).collect());
    }
}

impl Actor for TokenActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Handler<PoolChanged> for TokenActor {
    type Result = ();

    fn handle(&mut self, PoolChanged: PoolChanged, ctx: &mut Self::Context) {
        if !self.is_watching {
            self.look(ctx);
        }
    }
}

impl Handler<Drain> for TokenActor {
    type Result = ();

    fn handle(&mut self, Drain: Drain, _: &mut Self::Context) {
        tracing::warn!(token = %self.token.config.name, "the token is taken out of service");
        self.token.drain();
        self.shared.pool.lane.wake();
    }
}

impl Handler<Enable> for TokenActor {
    type Result = ();

    fn handle(&mut self, Enable: Enable, _: &mut Self::Context) {
        tracing::info!(token = %self.token.config.name, "the token is taken into service");
        self.token.enable();
    }
}
