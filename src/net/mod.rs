//! What every server and client of ours needs from the network: listening, TLS, tokens, guards, budgets, retries, stopping.
//!
//! Knows no protocol above HTTP and no role. Loses nothing by itself: what is refused is said to the other side.

mod bearer;
mod budget;
mod guard;
mod handshake;
mod listener;
mod retry;
mod socket;
pub mod tls;

pub use bearer::{Token, bearer};
pub use budget::{Budget, Claim, NoRoom};
pub use guard::{HostGuard, Refused};
pub use handshake::{HandshakeProblem, handshake_problem};
pub use listener::{Address, Error, Limits, Listener};
pub use retry::RetryPolicy;
/// Tells every task that it is time to stop. Clones hear the same call; children can be stopped alone.
pub use tokio_util::sync::CancellationToken as Shutdown;
