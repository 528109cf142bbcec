//! The engine as a whole: owns the lives of its actors and threads, hands out the gate. How it starts is in `start.rs`.

mod parts;
mod start;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::InstanceId;
use keymill_core::instance::Stage;
use tokio::sync::oneshot;

pub use parts::{Bootstrap, DeriveInToken, EngineError, Parts, Root};

use crate::actor::keyring::FlushUsage;
use crate::audit::AuditMessage;
use crate::authorities::AuthorityTimer;
use crate::cluster::{Follower, Herald, Member};
use crate::ending::Ending;
use crate::gate::Gate;
use crate::host::{self, InstanceHost};
use crate::retention::Retention;
use crate::rotation::RotationThreads;
use crate::validation::ValidationThreads;

/// How long the threads of tokens may take to end; one in a call that does not return is left behind.
const POOL_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A running engine.
pub struct Engine {
    gate: Gate,
    system: actix::System,
    threads: Vec<JoinHandle<()>>,
    /// Removes audit files whose time is over, where any ever is.
    retention: Option<Retention>,
    /// Rotates secrets, where there is a rotator.
    rotations: Option<RotationThreads>,
    /// Look for proofs of ACME, where that is offered.
    validations: Option<ValidationThreads>,
    /// Makes what certificate authorities owe.
    authorities: Option<AuthorityTimer>,
    /// Knows of other nodes, where there may be any.
    following: Option<Following>,
}

/// What makes a node one of several.
struct Following {
    follower: Follower,
    member: Member,
    herald: Herald,
}

impl Engine {
    /// Returns the way in.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Runs a future on the control arbiter and waits for it on this thread.
    fn block_on<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let answer = self.spawn(future).recv();
        answer.unwrap_or_else(|_| Err(Error::internal("the engine is shutting down")))
    }

    /// Runs a future on the control arbiter.
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> flume::Receiver<Result<T>> {
        let (sender, receiver) = flume::bounded(1);
        self.gate.inner().actors.control.spawn(async move {
            let _gone = sender.send(future.await);
        });
        receiver
    }

    /// Lists the instances of the installation, whether they run or not.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceId> {
        let book = self.gate.inner().shared.instances.read().clone();
        book.instances().map(|instance| instance.id.clone()).collect()
    }

    /// Has instances run by `host`, and starts those that there are, those of a domain of their own beside all else; one that does not start, as its token
    /// is away, is tried again from time to time. One whose release was cut short is released.
    pub fn host(&self, host: Arc<dyn InstanceHost>) {
        let shared = &self.gate.inner().shared;
        shared.hosting.set(host.clone());
        let book = shared.instances.read().clone();
        for instance in book.instances() {
            let outcome = match instance.stage {
                Stage::Made => {
                    host::start(shared, instance);
                    Ok(())
                }
                Stage::Begun => {
                    Err(Error::new(ErrorKind::InstanceState, "it was never made whole: release it"))
                }
                Stage::Ending => {
                    let (gate, id) = (self.gate.clone(), instance.id.clone());
                    self.block_on(async move { gate.end_released(id).await })
                }
            };
            if let Err(error) = outcome {
                tracing::error!(instance = %instance.id, ?error, "an instance does not run");
            }
        }
        shared.hosting.bump();
    }

    /// Starts no instance any more that has not started.
    pub fn end_hosting(&self) {
        self.gate.inner().shared.hosting.end();
    }

    /// Ends the engine of an instance whose frontends go on: from now on everything is refused, what was taken is finished first.
    pub fn end(self) {
        self.gate.inner().shared.close();
        for arbiter in self.gate.take_arbiters() {
            let stopped = self.block_on(async move {
                arbiter.stop().await;
                Ok(())
            });
            if let Err(error) = stopped {
                tracing::error!(?error, "a desk of a released instance was not closed");
            }
        }
        self.stop();
    }

    /// Writes what is to be kept, closes the audit chains, and stops. Frontends are stopped before.
    pub fn stop(mut self) {
        let gate = self.gate.clone();
        self.end_hosting();
        // First: what they are at is kept by the others.
        if let Some(rotations) = self.rotations.take() {
            rotations.stop();
        }
        if let Some(validations) = self.validations.take() {
            validations.stop();
        }
        if let Some(authorities) = self.authorities.take() {
            authorities.stop();
        }
        let shared = gate.inner().shared.clone();
        let mut ending = Ending::begin(&shared);
        let flushed = match ending.is_store_away() {
            true => None,
            false => {
                let flushing = self.spawn(async move { gate.inner().actors.keyring(FlushUsage).await });
                ending.wait(&flushing)
            }
        };
        // Of an instance that is released nothing is kept.
        if !self.gate.is_closed() {
            match flushed {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(?error, "use counts could not be written"),
                None => tracing::error!("use counts could not be written: the store is away"),
            }
        }
        if let Some(retention) = self.retention {
            retention.stop();
        }
        for desk in self.gate.take_desks() {
            desk.close();
        }
        let (sender, stopped) = oneshot::channel();
        // The chains end whatever the store does; who writes them asks nothing of it any more where it is away.
        let _seen = ending.is_store_away();
        if self.gate.inner().actors.audit.send(AuditMessage::Stop(sender)).is_ok() {
            let _gone = stopped.blocking_recv();
        }
        if let Err(error) = self.gate.inner().shared.audit.log().close() {
            tracing::error!(%error, "audit log");
        }
        // Until here others must not take what is ours.
        ending.settle();
        if let Some(Following { follower, member, herald }) = self.following {
            match ending.is_store_away() {
                false => {
                    ending.join(herald.stop());
                    ending.join(follower.stop());
                    ending.join(member.stop());
                }
                true => {
                    let threads = [herald.stop(), follower.stop(), member.stop()];
                    threads.into_iter().for_each(|thread| ending.join(thread));
                }
            }
        }
        self.gate.inner().actors.lane.close();
        self.gate.inner().shared.software.close();
        self.gate.inner().shared.pool.end(POOL_ENDS_WITHIN);
        self.gate.inner().shared.crew.join();
        self.system.stop();
        self.threads.into_iter().for_each(|thread| ending.join(thread));
    }
}
