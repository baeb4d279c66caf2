//! What all routes share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::model::UnixNanos;
use crate::net::HostGuard;
use crate::store::Reader;

use super::error::ApiError;
use super::roles::RoleStatus;
use super::token::AccessToken;
use super::turn::Turn;

/// The wall clock, handed in by `run`.
pub type Clock = Arc<dyn Fn() -> UnixNanos + Send + Sync>;

/// How long a query waits for its turn before the client is told to come back. Longer than nearly every query takes,
/// shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `run` builds a page from.
pub struct Parts {
    /// Store to ask.
    pub reader: Arc<dyn Reader>,
    /// Health of the other roles.
    pub roles: Arc<dyn RoleStatus>,
    /// Wall clock.
    pub clock: Clock,
    /// Who may ask.
    pub guard: HostGuard,
    /// Token that must be shown; `None` serves everybody whom the guard lets in.
    pub token: Option<AccessToken>,
    /// Flame graphs, lists and timelines computed at the same time, at least 1. Each needs memory for its stacks.
    pub max_queries: usize,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("guard", &self.guard)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Shared state of all routes. Clones are the same state.
#[derive(Clone, Debug)]
pub struct WebState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    started: UnixNanos,
    turns: Arc<Semaphore>,
}

impl WebState {
    /// Starts the clock of the page.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let started = (parts.clock)();
        let turns = Arc::new(Semaphore::new(parts.max_queries.max(1)));
        Self(Arc::new(Inner { parts, started, turns }))
    }

    pub(super) fn reader(&self) -> &dyn Reader {
        &*self.0.parts.reader
    }

    pub(super) fn roles(&self) -> &dyn RoleStatus {
        &*self.0.parts.roles
    }

    pub(super) fn guard(&self) -> &HostGuard {
        &self.0.parts.guard
    }

    pub(super) fn token(&self) -> Option<&AccessToken> {
        self.0.parts.token.as_ref()
    }

    pub(super) fn now(&self) -> UnixNanos {
        (self.0.parts.clock)()
    }

    pub(super) fn started(&self) -> UnixNanos {
        self.0.started
    }

    /// Waits for the turn of a heavy query. The turn ends when it is dropped and the store has finished.
    pub(super) async fn turn(&self) -> Result<Turn, ApiError> {
        let turn = Arc::clone(&self.0.turns).acquire_owned();
        match tokio::time::timeout(PATIENCE, turn).await {
            Ok(Ok(permit)) => Ok(Turn::new(self.0.parts.reader.clone(), permit)),
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}
