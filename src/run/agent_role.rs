//! The agent alone: samples this host and reports to a collector over the network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tower::ServiceBuilder;

use crate::agent::reporter::{OtlpSink, random};
use crate::agent::{self, Agent};
use crate::config::{AgentSection, ClientTls};
use crate::net::tls::Connector;
use crate::net::{Shutdown, handshake_problem};
use crate::wire::otlp::{ClientOptions, Connect, Protected};

use super::Failure;
use super::agent_part::running::log_balance;
use super::lifecycle::StopSignals;

/// Share of the wait by which agents differ, so that a fleet with a wrong token does not come back all at once.
const REFUSED_JITTER: f64 = 0.3;

/// Whom the agent trusts, for those whose collector it does not.
const TRUST: &str =
    "the agent trusts the authorities of this system, or those in the file that SSL_CERT_FILE names";

/// Why the role ends.
enum End {
    Signal,
    Died,
    Barred(String),
}

/// Runs until a signal comes, the agent dies, or the collector takes nothing from it.
pub(super) async fn run(section: AgentSection) -> Result<(), Failure> {
    let mut signals = StopSignals::register()?;
    let options = client_options(&section)?;
    let address = options.address.clone();
    let sink = OtlpSink::new(&options).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        Failure::with_hint(error, hint)
    })?;
    let shutdown = Shutdown::new();
    let handle = Agent::build(agent::Settings::from(&section), Arc::new(sink))
        .and_then(|agent| agent.spawn(shutdown.clone()))
        .map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Failure::with_hint(error, hint)
        })?;
    let status = handle.status();
    let now = status.get();
    tracing::info!(
        cpus = now.cpus,
        frequency_hz = now.frequency_hz,
        kernel = %now.kernel,
        object = now.object,
        collector = address,
        "sampling"
    );
    let end = tokio::select! {
        signal = signals.next() => { tracing::info!(signal, "stopping"); End::Signal }
        () = handle.ended() => End::Died,
        reason = handle.barred() => End::Barred(reason),
    };
    shutdown.cancel();
    tokio::select! {
        ended = handle.joined() => if let Err(error) = ended { tracing::error!("{error}") },
        signal = signals.insistence() => tracing::warn!(signal, "stopped at once; the last window is lost"),
    }
    let last = status.get();
    log_balance(&last.counters, last.tick_share);
    match end {
        End::Signal => Ok(()),
        End::Died => Err(anyhow::anyhow!("the agent ended by itself").into()),
        End::Barred(reason) => {
            let wait = varied(section.refused_wait, random());
            tracing::error!(wait_s = wait.as_secs(), "not sampling any more; ending after a wait: {reason}");
            tokio::select! {
                signal = signals.next() => { tracing::info!(signal, "stopping"); }
                () = tokio::time::sleep(wait) => {}
            }
            Err(anyhow::anyhow!("the collector takes nothing from this agent: {reason}").into())
        }
    }
}

/// A wait that differs from agent to agent. `random` is in `[0, 1)`.
fn varied(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(1.0 + REFUSED_JITTER * (2.0 * random - 1.0))
}

/// Where and how to report; what is missing is told in the words of the options.
fn client_options(section: &AgentSection) -> Result<ClientOptions, Failure> {
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let Some(address) = &section.collection_agent else {
        return Err(usage(
            "error: -collection-agent: expected host:port of a collector, found nothing\n\
             hint: everflame all-in-one needs no collector; it stores on this machine",
        ));
    };
    let Some(token) = &section.secret_token else {
        return Err(usage(
            "error: -secret-token: expected the token of the collector, found nothing (missing SecretToken)\n\
             hint: write it into the configuration file or set PRODFILER_SECRET_TOKEN",
        ));
    };
    let connect = if section.disable_tls { None } else { Some(protected()?) };
    Ok(ClientOptions {
        address: address.to_string(),
        connect,
        token: token.reveal().clone(),
        ..ClientOptions::default()
    })
}

/// TLS to the collector, its certificate checked against the authorities of this system.
fn protected() -> Result<Connect, Failure> {
    let connector = Connector::http2(&ClientTls::default(), AgentSection::NAME).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        Failure::with_hint(error, hint)
    })?;
    let connect = ServiceBuilder::new()
        .map_response(|stream| Box::pin(stream) as Protected)
        .map_err(|error: io::Error| match handshake_problem(&error) {
            Some(problem) => format!("{} ({TRUST})", problem.message).into(),
            None => error.into(),
        })
        .service(connector);
    Ok(Connect::new(connect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_by_less_than_a_third() {
        let ten = Duration::from_mins(10);
        assert_eq!([0.0, 0.5].map(|random| varied(ten, random).as_secs()), [420, 600]);
        assert!(varied(ten, 0.999_999) < Duration::from_mins(13));
    }
}
