//! The agent as a part of all-in-one: may be off, may fail to start, and everything else goes on.

use crate::net::Shutdown;
use crate::symbolizer::ExecutableSource;
use crate::web::AgentStatus;

use super::summary::Summary;

/// What the page can learn of the agent.
#[derive(Clone)]
pub(super) enum AgentView {
    /// This process has no agent by choice of the person.
    Off,
    /// It could not start.
    Failed {
        /// Why.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It runs, or ran.
    #[cfg(feature = "agent")]
    Running(crate::agent::StatusReader),
}

impl AgentView {
    /// What the page shows.
    pub(super) fn status(&self) -> AgentStatus {
        match self {
            Self::Off => AgentStatus {
                problem: Some("the agent is switched off".into()),
                hint: Some("start without --no-agent to sample this machine".into()),
                ..AgentStatus::default()
            },
            Self::Failed { problem, hint } => {
                AgentStatus { problem: Some(problem.clone()), hint: hint.clone(), ..AgentStatus::default() }
            }
            #[cfg(feature = "agent")]
            Self::Running(reader) => running::status(reader),
        }
    }
}

/// The agent between build and stop.
pub(super) enum AgentPart {
    /// There is none; the view says why.
    Absent(AgentView),
    /// It samples.
    #[cfg(feature = "agent")]
    Present(running::Present),
}

impl AgentPart {
    /// What the page can learn.
    pub(super) fn view(&self) -> AgentView {
        match self {
            Self::Absent(view) => view.clone(),
            #[cfg(feature = "agent")]
            Self::Present(present) => present.view(),
        }
    }

    /// Where the symbolizer finds executables.
    pub(super) fn executables(&self) -> Option<Box<dyn ExecutableSource>> {
        match self {
            Self::Absent(_) => None,
            #[cfg(feature = "agent")]
            Self::Present(present) => Some(present.executables()),
        }
    }

    /// Adds its lines to the start-up summary.
    pub(super) fn describe(&self, summary: &mut Summary) {
        let status = self.view().status();
        let mut text = status.problem.map_or_else(Vec::new, |problem| vec![problem]);
        text.extend(status.hint.map(|hint| format!("hint: {hint}")));
        if status.running {
            text.insert(
                0,
                format!(
                    "{} CPUs at {} Hz · Linux {} · {} kernel object · {} processes",
                    status.cpus, status.frequency_hz, status.kernel, status.object, status.processes
                ),
            );
        }
        summary.line("agent", text.join("\n"));
    }

    /// Waits until sampling ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Absent(_) => std::future::pending().await,
            #[cfg(feature = "agent")]
            Self::Present(present) => present.ended().await,
        }
    }

    /// Drains the last window and says where every tick went.
    pub(super) async fn stop(self) {
        match self {
            Self::Absent(_) => {}
            #[cfg(feature = "agent")]
            Self::Present(present) => present.stop().await,
        }
    }
}

#[cfg(not(feature = "agent"))]
impl AgentPart {
    /// This build has no agent.
    pub(super) fn start(section: &crate::config::AllInOneSection, _shutdown: &Shutdown) -> Self {
        Self::Absent(if section.run_agent {
            AgentView::Failed { problem: "this program was built without the agent".into(), hint: None }
        } else {
            AgentView::Off
        })
    }
}

#[cfg(feature = "agent")]
pub(super) mod running {
    //! The agent that runs.

    use std::fs::File;
    use std::sync::Arc;

    use super::{AgentPart, AgentStatus, AgentView, ExecutableSource, Shutdown};
    use crate::agent::reporter::Sink;
    use crate::agent::{self, Agent, AgentHandle, StatusReader};
    use crate::config::AllInOneSection;
    use crate::model::{FileId, UnknownReason};
    use crate::run::adapters::counters;

    /// A running agent with its own stop.
    pub(in crate::run) struct Present {
        handle: AgentHandle,
        shutdown: Shutdown,
    }

    impl AgentPart {
        /// Builds and starts the agent unless it is switched off; a failure becomes part of the view.
        pub(in crate::run) fn start(
            section: &AllInOneSection,
            sink: Arc<dyn Sink>,
            shutdown: &Shutdown,
        ) -> Self {
            if !section.run_agent {
                return Self::Absent(AgentView::Off);
            }
            let shutdown = shutdown.child_token();
            let started = Agent::build(agent::Settings::from(&section.agent), sink)
                .and_then(|agent| agent.spawn(shutdown.clone()));
            match started {
                Ok(handle) => Self::Present(Present { handle, shutdown }),
                Err(error) => Self::Absent(AgentView::Failed {
                    problem: format!("this machine is not sampled: {error}"),
                    hint: error.hint().map(str::to_owned),
                }),
            }
        }
    }

    impl Present {
        pub(super) fn view(&self) -> AgentView {
            AgentView::Running(self.handle.status())
        }

        pub(super) fn executables(&self) -> Box<dyn ExecutableSource> {
            Box::new(Registry(self.handle.executables()))
        }

        pub(super) async fn ended(&mut self) -> String {
            self.handle.ended().await;
            "the agent ended by itself".into()
        }

        pub(super) async fn stop(self) {
            let status = self.handle.status();
            self.shutdown.cancel();
            if let Err(error) = self.handle.joined().await {
                tracing::error!("{error}");
            }
            let status = status.get();
            log_balance(&status.counters, status.tick_share);
        }
    }

    /// Ticks against what became of them. They are equal, or samples were lost without a reason.
    ///
    /// `tick_share` is ticks ÷ (frequency × busy time of `/proc/stat`): below 0.99 the kernel itself skipped some.
    pub(in crate::run) fn log_balance(counters: &[(&'static str, u64)], tick_share: Option<f64>) {
        let value = |name: &str| counters.iter().find(|(n, _)| *n == name).map_or(0, |(_, value)| *value);
        let dropped: u64 =
            counters.iter().filter(|(name, _)| name.starts_with("dropped")).map(|(_, value)| value).sum();
        let (ticks, stored) = (value("ticks"), value("stored"));
        let reasons: Vec<String> = counters
            .iter()
            .filter(|(name, value)| name.starts_with("dropped") && *value > 0)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let reasons = reasons.join(" ");
        let of_busy_time =
            tick_share.map_or_else(|| "too short to tell".into(), |share| format!("{share:.4}"));
        if ticks == stored + dropped {
            tracing::info!(ticks, stored, dropped, of_busy_time, reasons, "loss balance");
        } else {
            tracing::error!(ticks, stored, dropped, reasons, "loss balance does not come out even");
        }
    }

    /// The agent's executables as the symbolizer wants them.
    struct Registry(Arc<agent::Executables>);

    impl ExecutableSource for Registry {
        fn open(&self, file: FileId) -> Result<File, UnknownReason> {
            self.0.open(file)
        }
    }

    /// The agent's words in the page's.
    pub(super) fn status(reader: &StatusReader) -> AgentStatus {
        let status = reader.get();
        AgentStatus {
            running: status.running,
            problem: status.problem,
            hint: status.hint,
            frequency_hz: status.frequency_hz,
            cpus: status.cpus,
            kernel: status.kernel.to_string(),
            object: status.object.to_owned(),
            processes: status.processes,
            tables: status.tables,
            pool_bytes: status.pool_bytes,
            resident_bytes: status.resident_bytes,
            notes: status.notes,
            counters: counters(status.counters),
        }
    }
}
