//! The agent alone: samples this host and reports to a collector over the network.

use std::sync::Arc;

use crate::agent::reporter::OtlpSink;
use crate::agent::{self, Agent};
use crate::config::AgentSection;
use crate::net::Shutdown;
use crate::wire::otlp::ClientOptions;

use super::Failure;
use super::agent_part::running::log_balance;
use super::lifecycle::StopSignals;

/// Runs until a signal comes or the agent dies.
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
    let died = tokio::select! {
        signal = signals.next() => { tracing::info!(signal, "stopping"); false }
        () = handle.ended() => true,
    };
    shutdown.cancel();
    tokio::select! {
        ended = handle.joined() => if let Err(error) = ended { tracing::error!("{error}") },
        signal = signals.insistence() => tracing::warn!(signal, "stopped at once; the last window is lost"),
    }
    let last = status.get();
    log_balance(&last.counters, last.tick_share);
    if died { Err(anyhow::anyhow!("the agent ended by itself").into()) } else { Ok(()) }
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
    if !section.disable_tls {
        return Err(usage(
            "error: -disable-tls: TLS to the collector is not built yet\n\
             hint: set -disable-tls and report over a trusted network or a local TLS proxy",
        ));
    }
    Ok(ClientOptions {
        address: address.to_string(),
        token: token.reveal().clone(),
        ..ClientOptions::default()
    })
}
