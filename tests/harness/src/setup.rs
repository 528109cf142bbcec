//! What an engine is started with, where a test wants more than the shipped parts in their defaults.

use std::sync::Arc;
use std::time::Duration;

use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_runtime::clock::Clock;
use keymill_runtime::{ClusterConfig, EngineConfig, TokenPart};
use keymill_tls::ServerTls;

pub(crate) type Wrap<T> = Box<dyn FnOnce(Arc<T>) -> Arc<T> + Send>;

/// How an engine is started.
pub struct Setup {
    /// The engine's options.
    pub config: EngineConfig,
    /// The engine's clock.
    pub clock: Clock,
    /// The name of the node.
    pub(crate) node: String,
    pub(crate) workers: usize,
    pub(crate) hello_timeout: Duration,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) store: Wrap<dyn Store>,
    pub(crate) audit: Wrap<dyn AuditLog>,
    pub(crate) tokens: Vec<TokenPart>,
    /// The store of another node, in place of the site's.
    pub(crate) shared: Option<Arc<dyn Store>>,
    /// Whether the engine is an instance where nothing else is asked for, too.
    pub(crate) is_instance: bool,
}

impl Setup {
    /// Takes the shipped parts, and these options.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            clock: Clock::default(),
            node: "test".into(),
            workers: 2,
            hello_timeout: Duration::from_secs(10),
            tls: None,
            store: Box::new(|shipped| shipped),
            audit: Box::new(|shipped| shipped),
            tokens: Vec::new(),
            shared: None,
            is_instance: false,
        }
    }

    /// Sets the clock off before the start.
    pub fn at_offset_ms(self, offset_ms: i64) -> Self {
        self.clock.jump_to_offset_ms(offset_ms);
        self
    }

    /// Gives the engine tokens.
    pub fn with_tokens(self, tokens: Vec<TokenPart>) -> Self {
        Self { tokens, ..self }
    }

    /// Makes the engine one of several nodes, with this name.
    pub fn as_node(mut self, name: &str, cluster: ClusterConfig) -> Self {
        self.config.cluster = Some(cluster);
        Self { node: name.to_owned(), ..self }
    }

    /// Has the engine be that of an instance, with another one beside it, as `KEYMILL_TEST_INSTANCES` does.
    pub fn as_instance(self) -> Self {
        Self { is_instance: true, ..self }
    }

    /// Gives the listener so many arbiters; one makes it certain that connections share theirs.
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Sets the time from the accept to the last byte of the hello.
    pub fn with_hello_timeout(self, hello_timeout: Duration) -> Self {
        Self { hello_timeout, ..self }
    }

    /// Has the listener speak TLS.
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Puts something around the shipped store, or in its place.
    pub fn with_store(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send + 'static) -> Self {
        Self { store: Box::new(wrap), ..self }
    }

    /// Puts something around the shipped audit log, or in its place.
    pub fn with_audit(
        self,
        wrap: impl FnOnce(Arc<dyn AuditLog>) -> Arc<dyn AuditLog> + Send + 'static,
    ) -> Self {
        Self { audit: Box::new(wrap), ..self }
    }
}
