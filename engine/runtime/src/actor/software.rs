//! The software actor, one an arbiter: does the symmetric work of that arbiter's connections, in slices, fairly between
//! principals. Waking another thread would cost more than the work.

use std::future::ready;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use keymill_core::access::Caller;
use keymill_core::error::{Error, ErrorKind, Result};
use prometheus::IntGauge;

use super::arbiter::Place;
use crate::metrics::OverQuotaSeries;
use crate::pool::chunk::{Home, Return};
use crate::ready::ReadyQueue;
use crate::shared::Shared;
use crate::work::{Desk, DeskKind, Job};

/// Nanoseconds of work that a principal gets in its turn while others wait.
const QUANTUM: u64 = 25_000;
const TICK_EVERY: Duration = Duration::from_millis(250);
/// How often jobs that wait for tokens are looked at for their deadlines.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Does the ready software work of one arbiter.
pub struct SoftwareActor {
    desk: Option<Desk>,
    ready: ReadyQueue<Caller, Box<Job>>,
    max_queued: usize,
    over_quota: OverQuotaSeries,
    budget: u64,
    /// Its engine's place among those that work on the arbiter.
    place: Place,
    weight: Arc<AtomicU32>,
    queued: Arc<AtomicUsize>,
    slicing: bool,
    /// Whether the jobs that wait for tokens are being looked at.
    looking: bool,
    parts: Vec<(Box<Job>, crate::ready::Part)>,
    unfinished: Vec<Box<Job>>,
}

/// The address of an arbiter's software actor.
#[derive(Clone)]
pub struct ArbiterHandle {
    addr: Addr<SoftwareActor>,
    queued: Arc<AtomicUsize>,
    max_queued: usize,
    /// Jobs that may wait before one that is over its quota is refused.
    idle_jobs: usize,
    in_flight: IntGauge,
    over_quota: OverQuotaSeries,
}

impl ArbiterHandle {
    /// Returns the number of jobs that wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Hands over jobs; those that find the queue full, or are over their quota and find it not idle, are refused there, with a record.
    pub fn submit(&self, mut jobs: Vec<Box<Job>>) {
        let before = self.queued.fetch_add(jobs.len(), Ordering::Relaxed);
        for (at, job) in jobs.iter_mut().enumerate() {
            let Some(over) = job.over_quota else { continue };
            if job.is_refused() {
                continue;
            }
            match before + at < self.idle_jobs.min(self.max_queued) {
                true => self.over_quota.admitted.inc(),
                false => {
                    self.over_quota.refused.inc();
                    job.refuse(over.error());
                }
            }
        }
        self.in_flight.add(jobs.len() as i64);
        let fit = self.max_queued.saturating_sub(before);
        // The mailbox is bounded by the jobs in it: every sender counts them first.
        self.addr.do_send(Submit { jobs, fit });
    }

    /// Finishes what waits and closes the desk.
    pub async fn stop(&self) {
        let _gone = self.addr.send(Stop).await;
    }
}

impl SoftwareActor {
    pub(crate) fn start_here(shared: &Arc<Shared>) -> Result<ArbiterHandle> {
        let queued = Arc::new(AtomicUsize::new(0));
        let home = Arc::new(ArbiterHome(OnceLock::new()));
        let actor = Self {
            desk: Some(Desk::open_at(shared, DeskKind::Arbiter, home.clone())?),
            ready: ReadyQueue::new(QUANTUM),
            max_queued: shared.config.max_queued_jobs,
            over_quota: shared.metrics.over_quota.clone(),
            budget: shared.config.slice.as_nanos() as u64,
            place: Place::take(),
            weight: shared.weight.clone(),
            queued: queued.clone(),
            slicing: false,
            looking: false,
            parts: Vec::new(),
            unfinished: Vec::new(),
        };
        let max_queued = shared.config.max_queued_jobs;
        let idle_jobs = shared.config.quota.idle_jobs;
        let over_quota = shared.metrics.over_quota.clone();
        let in_flight = shared.metrics.in_flight.clone();
        let addr = actor.start();
        let _set_once = home.0.set(addr.clone());
        Ok(ArbiterHandle { addr, queued, max_queued, idle_jobs, in_flight, over_quota })
    }

    /// Works for one slice, then lets the arbiter look at its connections before the next.
    fn slice(&mut self, ctx: &mut Context<Self>) {
        if self.place.is_next() {
            self.work_once();
            self.look_after_waiting(ctx);
        }
        if self.is_idle() {
            self.place.rest();
            self.slicing = false;
            return;
        }
        self.slice_later(ctx);
    }

    /// Has a slice worked once the mailbox is empty. Connections that became readable together have all been at it by then, since they were
    /// woken before this actor was: what they bring shares its audit write.
    fn slice_soon(&mut self, ctx: &mut Context<Self>) {
        self.slicing = true;
        ctx.spawn(ready(()).into_actor(self).map(|(), actor, ctx| actor.slice(ctx)));
    }

    /// Has a slice worked once the arbiter has looked at its sockets again.
    fn slice_later(&mut self, ctx: &mut Context<Self>) {
        self.slicing = true;
        ctx.spawn(tokio::task::yield_now().into_actor(self).map(|(), actor, ctx| actor.slice(ctx)));
    }

    fn work_once(&mut self) {
        let Some(desk) = &mut self.desk else { return };
        let began = Instant::now();
        self.ready.take(self.budget, &mut self.parts);
        let taken = self.parts.len();
        desk.work(&mut self.parts, &mut self.unfinished);
        self.queued.fetch_sub(taken - self.unfinished.len(), Ordering::Relaxed);
        self.put_back();
        if let Some(desk) = &mut self.desk
            && desk.is_behind()
        {
            desk.catch_up(&mut self.unfinished);
            self.queued.fetch_add(self.unfinished.len(), Ordering::Relaxed);
            self.put_back();
        }
        self.place.had(began.elapsed(), self.weight.load(Ordering::Relaxed));
    }

    /// Refuses the newest of what waits over its quota, so that the queue has room for work that is within; false where there is none.
    fn make_room(&mut self) -> bool {
        let Some(mut job) = self.ready.shed_newest() else { return false };
        if let Some(over) = job.over_quota {
            job.refuse(over.error());
        }
        self.over_quota.shed.inc();
        // It waits for its turn to be recorded and answered, as every refusal does.
        let principal = job.call().principal.caller();
        self.ready.push(&principal, 1, job);
        true
    }

    /// Tells whether there is nothing to do, be it that jobs wait for tokens.
    fn is_idle(&self) -> bool {
        self.ready.is_empty() && !self.desk.as_ref().is_some_and(Desk::is_behind)
    }

    fn put_back(&mut self) {
        // Last first, so that each principal's order is kept.
        while let Some(job) = self.unfinished.pop() {
            let principal = job.call().principal.caller();
            self.ready.put_back(&principal, 1, job);
        }
    }

    /// Has the jobs that wait for tokens looked at until there is none.
    fn look_after_waiting(&mut self, ctx: &mut Context<Self>) {
        if self.looking || !self.desk.as_ref().is_some_and(Desk::awaits) {
            return;
        }
        self.looking = true;
        ctx.run_later(LOOK_EVERY, |actor, ctx| {
            actor.looking = false;
            if let Some(desk) = &mut actor.desk {
                desk.expire_waiting(&mut actor.unfinished);
            }
            actor.go_on(ctx);
        });
    }

    /// Takes up jobs that need not wait any longer.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.queued.fetch_add(self.unfinished.len(), Ordering::Relaxed);
        self.put_back();
        if !self.is_idle() && !self.slicing {
            self.slice(ctx);
        }
        self.look_after_waiting(ctx);
    }
}

impl Actor for SoftwareActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK_EVERY, |actor, _| {
            if let Some(desk) = &mut actor.desk {
                desk.tick();
            }
        });
    }
}

/// Jobs, of which so many fit into the queue.
struct Submit {
    jobs: Vec<Box<Job>>,
    fit: usize,
}

impl Message for Submit {
    type Result = ();
}

impl Handler<Submit> for SoftwareActor {
    type Result = ();

    fn handle(&mut self, Submit { jobs, fit }: Submit, ctx: &mut Self::Context) {
        if self.desk.is_none() {
            // The instance was released, and its chain is closed: nothing is done, and there is nowhere to write that down.
            self.queued.fetch_sub(jobs.len(), Ordering::Relaxed);
            jobs.into_iter().for_each(|job| job.turn_away());
            return;
        }
        for (at, mut job) in jobs.into_iter().enumerate() {
            if at >= fit && !job.is_refused() && !self.make_room() {
                let message =
                    format!("the queue of the crypto pool holds its limit of {} jobs", self.max_queued);
                job.refuse(Error::new(ErrorKind::Busy, message).retry_after_ms(20));
            }
            let principal = job.call().principal.caller();
            self.ready.push(&principal, 1, job);
        }
        if !self.slicing {
            self.slice_soon(ctx);
        }
    }
}

/// What came back from tokens.
struct Returned(Vec<Return>);

impl Message for Returned {
    type Result = ();
}

impl Handler<Returned> for SoftwareActor {
    type Result = ();

    fn handle(&mut self, Returned(returns): Returned, ctx: &mut Self::Context) {
        if let Some(desk) = &mut self.desk {
            desk.returned(returns, &mut self.unfinished);
        }
        self.go_on(ctx);
    }
}

/// The home of an arbiter's desk.
struct ArbiterHome(OnceLock<Addr<SoftwareActor>>);

impl Home for ArbiterHome {
    fn returned(&self, returns: Vec<Return>) {
        // The mailbox is bounded by the chunks that the desk has out.
        if let Some(addr) = self.0.get() {
            addr.do_send(Returned(returns));
        }
    }
}

struct Stop;

impl Message for Stop {
    type Result = ();
}

impl Handler<Stop> for SoftwareActor {
    type Result = ();

    fn handle(&mut self, Stop: Stop, _: &mut Self::Context) {
        while !self.is_idle() {
            self.work_once();
        }
        if let Some(mut desk) = self.desk.take() {
            desk.refuse_waiting();
            desk.close();
        }
    }
}
