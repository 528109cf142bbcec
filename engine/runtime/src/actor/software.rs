//! The software actor, one an arbiter: does the symmetric work of that arbiter's connections, in slices, fairly between
//! principals. Waking another thread would cost more than the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use prometheus::IntGauge;

use crate::ready::ReadyQueue;
use crate::shared::Shared;
use crate::work::{Desk, DeskKind, Job};

/// Nanoseconds of work that a principal gets in its turn while others wait.
const QUANTUM: u64 = 25_000;
const TICK_EVERY: Duration = Duration::from_millis(250);

/// Does the ready software work of one arbiter.
pub struct SoftwareActor {
    desk: Option<Desk>,
    ready: ReadyQueue<Arc<AccessKeyId>, Box<Job>>,
    budget: u64,
    queued: Arc<AtomicUsize>,
    slicing: bool,
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
        let actor = Self {
            desk: Some(Desk::open(shared, DeskKind::Arbiter)?),
            ready: ReadyQueue::new(QUANTUM),
            budget: shared.config.slice.as_nanos() as u64,
            queued: queued.clone(),
            slicing: false,
            parts: Vec::new(),
            unfinished: Vec::new(),
        };
        let max_queued = shared.config.max_queued_jobs;
        let in_flight = shared.metrics.in_flight.clone();
        Ok(ArbiterHandle { addr: actor.start(), queued, max_queued, in_flight })
    }

    /// Works for one slice, then lets the arbiter look at its connections before the next.
    fn slice(&mut self, ctx: &mut Context<Self>) {
        self.work_once();
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
        // Last first, so that each principal's order is kept.
        while let Some(job) = self.unfinished.pop() {
            let principal = job.call().principal.access_key.clone();
            self.ready.put_back(&principal, 1, job);
        }
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
        if let Some(desk) = self.desk.take() {
            desk.close();
        }
    }
}
