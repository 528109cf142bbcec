//! The software actor, one an arbiter: does the symmetric work of that arbiter's connections, in slices, fairly between
//! principals. Waking another thread would cost more than the work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use prometheus::IntGauge;

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
    ready: ReadyQueue<Arc<AccessKeyId>, Box<Job>>,
    budget: u64,
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
    in_flight: IntGauge,
}

impl ArbiterHandle {
    /// Returns the number of jobs that wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Hands over jobs; those that find the queue full are refused there, with a record.
    pub fn submit(&self, mut jobs: Vec<Box<Job>>) {
        let before = self.queued.fetch_add(jobs.len(), Ordering::Relaxed);
        for job in jobs.iter_mut().skip(self.max_queued.saturating_sub(before)) {
            let message = format!("the queue of the crypto pool holds its limit of {} jobs", self.max_queued);
            job.refuse(Error::new(ErrorKind::Busy, message).retry_after_ms(20));
        }
        self.in_flight.add(jobs.len() as i64);
        // The mailbox is bounded by the jobs in it: every sender counts them first.
        self.addr.do_send(Submit(jobs));
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
            budget: shared.config.slice.as_nanos() as u64,
            queued: queued.clone(),
            slicing: false,
            looking: false,
            parts: Vec::new(),
            unfinished: Vec::new(),
        };
        let max_queued = shared.config.max_queued_jobs;
        let in_flight = shared.metrics.in_flight.clone();
        let addr = actor.start();
        let _set_once = home.0.set(addr.clone());
        Ok(ArbiterHandle { addr, queued, max_queued, in_flight })
    }

    /// Works for one slice, then lets the arbiter look at its connections before the next.
    fn slice(&mut self, ctx: &mut Context<Self>) {
        self.work_once();
        self.look_after_waiting(ctx);
        if self.ready.is_empty() {
            self.slicing = false;
            return;
        }
        self.slice_later(ctx);
    }

    /// Has a slice worked once the arbiter has looked at its other connections: what they bring shares its audit write.
    fn slice_later(&mut self, ctx: &mut Context<Self>) {
        self.slicing = true;
        ctx.spawn(tokio::task::yield_now().into_actor(self).map(|(), actor, ctx| actor.slice(ctx)));
    }

    fn work_once(&mut self) {
        let Some(desk) = &mut self.desk else { return };
        self.ready.take(self.budget, &mut self.parts);
        let taken = self.parts.len();
        desk.work(&mut self.parts, &mut self.unfinished);
        self.queued.fetch_sub(taken - self.unfinished.len(), Ordering::Relaxed);
        self.put_back();
    }

    fn put_back(&mut self) {
        // Last first, so that each principal's order is kept.
        while let Some(job) = self.unfinished.pop() {
            let principal = job.call().principal.access_key.clone();
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
        if !self.ready.is_empty() && !self.slicing {
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

struct Submit(Vec<Box<Job>>);

impl Message for Submit {
    type Result = ();
}

impl Handler<Submit> for SoftwareActor {
    type Result = ();

    fn handle(&mut self, Submit(jobs): Submit, ctx: &mut Self::Context) {
        for job in jobs {
            let principal = job.call().principal.access_key.clone();
            self.ready.push(&principal, 1, job);
        }
        if !self.slicing {
            self.slice_later(ctx);
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
        while !self.ready.is_empty() {
            self.work_once();
        }
        if let Some(mut desk) = self.desk.take() {
            desk.refuse_waiting();
            desk.close();
        }
    }
}
