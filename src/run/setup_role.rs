//! The role `setup`: a plan, its calls, its outcome and the keys, told to a person or to a pipe.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::cli::SetupArgs;
use crate::config::{ElasticsearchOutput, GenerationChoice, OutputSection};
use crate::store::elastic::setup::keys::{self, NewKey};
use crate::store::elastic::setup::{self, Call, Lifecycle, Options, Outcome, Owner, Plan, State, Step};
use crate::store::elastic::{Client, Generation};
use crate::telemetry::{self, LogStyle};

use super::lifecycle;
use super::resolve;
use super::{Failure, resolve::Outcome as Resolved};

/// Characters of a body that a dry run shows.
const MOST_SHOWN: usize = 120;

pub(super) fn run(args: &SetupArgs) -> Result<(), Failure> {
    let Resolved::Run(section, warnings) = resolve::setup(args)? else { return Ok(()) };
    telemetry::init(LogStyle::Server, false);
    warnings.tell();
    let OutputSection::Elasticsearch(output) = &section.output else {
        return Err(Failure::Usage(
            "error: output: expected elasticsearch, found embedded\nhint: the embedded store sets itself up"
                .into(),
        ));
    };
    lifecycle::runtime()?.block_on(prepare(args, output))
}

async fn prepare(args: &SetupArgs, output: &ElasticsearchOutput) -> Result<(), Failure> {
    let client = Client::new(output).map_err(|error| {
        let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        Failure::Usage(format!("error: {error}{hint}"))
    })?;
    let lifecycle = args.lifecycle.as_deref().map(|who| match who {
        "data-stream" => Lifecycle::DataStream,
        _ => Lifecycle::Policy,
    });
    let generation = match args.generation.as_deref() {
        Some("classic") => Some(Generation::Classic),
        Some("otel") => Some(Generation::Otel),
        Some(_) => None,
        None => output.generation.map(|choice| match choice {
            GenerationChoice::Classic => Generation::Classic,
            GenerationChoice::Otel => Generation::Otel,
        }),
    };
    let options = Options { generation, lifecycle };
    let plan = Plan::make(&client, options).await.map_err(failed)?;
    let page = Page::new();
    page.say(&heading(&plan));
    if args.dry_run {
        dry_run(args, &plan, &page);
        return Ok(());
    }
    if args.check {
        plan.steps.iter().for_each(|step| page.step(step, found_as(&step.state)));
        return conclude_check(&plan, &page);
    }
    let mut done = (0, 0);
    let applied = plan.apply(&client, |step, outcome| {
        match outcome {
            Outcome::Created => done.0 += 1,
            Outcome::Renewed => done.1 += 1,
            Outcome::Kept => {}
        }
        let word =
            if outcome == Outcome::Kept { found_as(&step.state).to_owned() } else { outcome.to_string() };
        page.step(step, &word);
    });
    applied.await.map_err(failed)?;
    page.say(&conclusion(&plan, done));
    if args.create_keys {
        create_keys(&client, plan.layout.generation, &page).await?;
    } else {
        page.say(&privileges(plan.layout.generation));
    }
    lacking_after(&plan)
}

fn failed(error: setup::Error) -> Failure {
    let hint = error.hint();
    Failure::with_hint(error, hint)
}

/// One line on what the cluster is.
fn heading(plan: &Plan) -> String {
    let licence = match plan.licence.as_str() {
        "" => "no licence told".to_owned(),
        licence => format!("{licence} licence"),
    };
    let generation = match plan.layout.generation {
        Generation::Classic => "classic documents (profiling-*)",
        Generation::Otel => "documents in OpenTelemetry's shape (profiling-*.otel-default)",
    };
    let lifecycle = match plan.layout.lifecycle {
        _ if plan.layout.generation == Generation::Otel => "lifecycle of data streams",
        Lifecycle::Policy => "index lifecycle management",
        Lifecycle::DataStream => {
            "lifecycle of data streams; the look-up tables behind aliases are not deleted by themselves"
        }
    };
    let about = &plan.about;
    format!("Elasticsearch {} \"{}\", {licence}, {generation}, {lifecycle}", about.version, about.name)
}

/// How a part is called that nothing was done to.
fn found_as(state: &State) -> &'static str {
    match state {
        State::Present(_) => "present",
        State::Differs(..) => "differs",
        State::Missing => "missing",
        State::Outdated => "outdated",
        State::LeftToElastic => "left to Elastic",
        State::InTheWay(_) => "in the way",
    }
}

/// What else there is to say about a part.
fn note(step: &Step) -> String {
    match &step.state {
        State::Present(Owner::Everflame) | State::Missing => String::new(),
        State::Present(owner) => kept(*owner).into(),
        State::Differs(owner, differences) => {
            const MOST: usize = 3;
            let shown: Vec<String> = differences.iter().take(MOST).map(ToString::to_string).collect();
            let more = differences.len().saturating_sub(MOST);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            format!("{}; {}{more}", kept(*owner), shown.join("; "))
        }
        State::Outdated => "of an older everflame".into(),
        State::LeftToElastic => "Elastic's plugin is switched on and makes it".into(),
        State::InTheWay(found) => {
            let name = step.part.target.as_deref().unwrap_or(&step.part.name);
            format!(
                "{name} is {found}: something wrote before the set-up. Delete it (DELETE /{name}) and run this again"
            )
        }
    }
}

fn kept(owner: Owner) -> &'static str {
    match owner {
        Owner::Everflame => "changed after it was made, kept",
        Owner::Elastic => "Elastic's, kept",
        Owner::Person => "somebody's own, kept",
    }
}

fn conclusion(plan: &Plan, (created, renewed): (usize, usize)) -> String {
    let all = plan.steps.len();
    if created + renewed == 0 && plan.lacking().next().is_none() {
        return format!("nothing to do: all {all} parts are in place");
    }
    let mut text = format!("{created} of {all} parts created");
    if renewed > 0 {
        let _ = write!(text, ", {renewed} renewed");
    }
    text
}

/// Parts that this program may not make and that are still missing.
fn lacking_after(plan: &Plan) -> Result<(), Failure> {
    let left = plan.lacking().filter(|step| !step.state.needs_change()).count();
    if left == 0 {
        return Ok(());
    }
    let hint = if plan.plugin_on {
        "Elastic's plugin makes them within a minute of being switched on; otherwise look into the log of Elasticsearch, or set \
         xpack.profiling.templates.enabled to false and run this again"
    } else {
        "do what the lines \"in the way\" say, then run this again"
    };
    Err(Failure::with_hint(anyhow::anyhow!("{left} parts are not in place"), Some(hint.into())))
}

fn conclude_check(plan: &Plan, page: &Page) -> Result<(), Failure> {
    let lacking = plan.lacking().count();
    let (all, outdated) = (plan.steps.len(), plan.changes().count().saturating_sub(lacking));
    if lacking > 0 {
        let hint = Some("run everflame setup without --check".into());
        return Err(Failure::with_hint(anyhow::anyhow!("{lacking} of {all} parts are not in place"), hint));
    }
    let outdated = if outdated > 0 { format!(", {outdated} of an older everflame") } else { String::new() };
    page.say(&format!("all {all} parts are in place{outdated}"));
    Ok(())
}

fn dry_run(args: &SetupArgs, plan: &Plan, page: &Page) {
    let mut calls = 0;
    for step in &plan.steps {
        match step.call() {
            Some(call) => {
                calls += 1;
                page.call(&call);
            }
            None if !matches!(step.state, State::Present(Owner::Everflame)) => {
                page.step(step, found_as(&step.state));
            }
            None => {}
        }
    }
    if args.create_keys {
        for role in with_keys(plan.layout.generation) {
            calls += 1;
            let body = Some(role.request());
            page.call(&Call { method: http::Method::POST, path: "/_security/api_key".into(), body });
        }
    }
    page.say(&format!("dry run: {calls} calls would be made, nothing was changed"));
}

/// Roles whose keys are made on request; the page's is for a person to decide.
fn with_keys(generation: Generation) -> impl Iterator<Item = keys::KeyRole> {
    keys::roles(generation).into_iter().filter(|role| role.role != "web")
}

/// What keys have to hold, ready for the console of Kibana.
fn privileges(generation: Generation) -> String {
    let mut text = String::from("API keys need (--create-keys makes those of collector and symbolizer):");
    for role in keys::roles(generation) {
        let _ = write!(text, "\n  {:<11} POST /_security/api_key {}", role.role, role.request());
    }
    text
}

async fn create_keys(client: &Client, generation: Generation, page: &Page) -> Result<(), Failure> {
    for role in with_keys(generation) {
        let made = keys::create(client, &role).await.map_err(|error| {
            let hint = format!("making keys needs {}", keys::SETUP_PRIVILEGES);
            let context = anyhow::Error::new(error).context(format!("API key {}", role.name));
            Failure::with_hint(context, Some(hint))
        })?;
        match made {
            NewKey::Made { id, encoded } => page.say(&format!(
                "key {} (id {id}), shown this once:\n  output.elasticsearch.api_key: \"{}\"",
                role.name,
                encoded.reveal()
            )),
            NewKey::Exists { id } => page.say(&format!(
                "key {} (id {id}) exists and was left alone; to make another: DELETE /_security/api_key {{\"ids\":[\"{id}\"]}}",
                role.name
            )),
        }
    }
    Ok(())
}

/// Standard output: a table for people, lines with tabs for programs.
struct Page {
    terminal: bool,
}

impl Page {
    fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }

    /// A closed pipe is no reason to end.
    #[allow(clippy::unused_self, reason = "all that is printed goes through the page")]
    fn say(&self, text: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    fn step(&self, step: &Step, word: &str) {
        let name = step.part.target.as_deref().unwrap_or(&step.part.name);
        self.say(row(self.terminal, word, &step.part.kind.to_string(), name, &note(step)).trim_end());
    }

    fn call(&self, call: &Call) {
        let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
        let short: String = if body.chars().count() > MOST_SHOWN {
            body.chars().take(MOST_SHOWN).chain(['…']).collect()
        } else {
            body
        };
        self.say(format!("{} {} {short}", call.method, call.path).trim_end());
    }
}

fn row(terminal: bool, word: &str, kind: &str, name: &str, note: &str) -> String {
    if terminal {
        format!("  {word:<10} {kind:<18} {name:<28} {note}")
    } else {
        format!("{word}\t{kind}\t{name}\t{note}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_table_for_people_and_tabs_for_programs() {
        assert_eq!(
            row(false, "created", "data stream", "profiling-hosts", ""),
            "created\tdata stream\tprofiling-hosts\t"
        );
        let table = row(true, "created", "data stream", "profiling-hosts", "note");
        assert_eq!(table, "  created    data stream        profiling-hosts              note");
    }
}
