//! `convoy doctor`: findings about a program and the machine, and the verdict that follows from them.
//!
//! Not here: looking at programs ([`program`], [`elf`]), at the machine ([`machine`]) and at what
//! leads to other hosts ([`fabric`]).

mod elf;
mod fabric;
mod machine;
mod program;

use crate::Outcome;
use crate::cli::Doctor;
use crate::output::print;
use convoy_runtime::config;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Exit status for "no".
const NO: u8 = 1;

/// What a finding means for acceleration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Good to know; changes nothing.
    Note,
    /// Rules acceleration out.
    No,
    /// The same, and the program does not even start when the library is preloaded.
    Never,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    /// What was looked at, in a word or two.
    pub(crate) topic: &'static str,
    /// What was found, and what to do about it.
    pub(crate) text: String,
}

/// Findings under construction.
#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn fine(&mut self, topic: &'static str, text: impl Into<String>) {
        self.add(Verdict::Fine, topic, text.into());
    }

    pub(crate) fn note(&mut self, topic: &'static str, text: impl Into<String>) {
        self.add(Verdict::Note, topic, text.into());
    }

    pub(crate) fn no(&mut self, topic: &'static str, text: impl Into<String>) {
        self.add(Verdict::No, topic, text.into());
    }

    pub(crate) fn never(&mut self, topic: &'static str, text: impl Into<String>) {
        self.add(Verdict::Never, topic, text.into());
    }

    fn add(&mut self, verdict: Verdict, topic: &'static str, text: String) {
        self.0.push(Finding { verdict, topic, text });
    }

    fn good(&self) -> bool {
        self.0.iter().all(|finding| !finding.rules_out())
    }
}

impl Finding {
    fn rules_out(&self) -> bool {
        matches!(self.verdict, Verdict::No | Verdict::Never)
    }
}

/// What `convoy run` has to know of a program; nothing of one that cannot be found.
#[derive(Default)]
pub(crate) struct Prospects {
    /// Why it would not be accelerated, in words.
    pub(crate) obstacle: Option<String>,
    /// It does not start with the library.
    pub(crate) unloadable: bool,
    /// It was compiled with AddressSanitizer, whose library looks whether it is the first.
    pub(crate) address_sanitizer: bool,
}

pub(crate) fn prospects(program: &Path) -> Prospects {
    let Ok((_, findings)) = program::examine(program) else { return Prospects::default() };
    let about = |topic| findings.0.iter().any(|finding| finding.topic == topic);
    Prospects {
        unloadable: findings.0.iter().any(|finding| finding.verdict == Verdict::Never),
        address_sanitizer: about(program::ADDRESS_SANITIZER),
        obstacle: findings.0.into_iter().find(Finding::rules_out).map(|finding| finding.text),
    }
}

pub(crate) fn doctor(options: &Doctor) -> Outcome {
    config::load();
    let program = options.program.as_deref().map(program::examine).transpose()?;
    let machine = machine::examine(options.library.as_deref());
    let fabric = fabric::examine();
    let here = machine.good() && program.as_ref().is_none_or(|(_, findings)| findings.good());
    let good = here && fabric.good();
    let all = All { program, machine, fabric };
    let text = if options.json { document(&all, good) } else { report(&all, here) };
    print(&text)?;
    Ok(if good { 0 } else { NO })
}

/// What was looked at.
struct All {
    program: Option<(String, Findings)>,
    machine: Findings,
    fabric: Findings,
}

/// The verdict is about this host, unless that is good and the fabric is not.
fn report(all: &All, here: bool) -> String {
    let mut text = String::new();
    let program = all.program.as_ref();
    if let Some((path, findings)) = program {
        let _ = writeln!(text, "{path}");
        text.push_str(&lines(findings));
    }
    text.push_str("this machine\n");
    text.push_str(&lines(&all.machine));
    text.push_str("other hosts\n");
    text.push_str(&lines(&all.fabric));
    let verdict = match (program, here) {
        (_, true) if !all.fabric.good() => {
            "no: there is no way to other hosts as CONVOY_FABRIC wants it; connections on this host would be accelerated"
                .to_owned()
        }
        (Some((path, _)), true) => {
            format!("yes: {path} would be accelerated (with other programs under Convoy on this host)")
        }
        (Some((path, _)), false) => {
            format!("no: {path} would not be accelerated; it runs as it does without Convoy")
        }
        (None, true) => "yes: this machine is fit for Convoy".to_owned(),
        (None, false) => {
            "no: this machine is not fit for Convoy; programs run as they do without it".to_owned()
        }
    };
    let _ = writeln!(text, "{verdict}");
    text
}

fn lines(findings: &Findings) -> String {
    let width = findings.0.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    let line = |finding: &Finding| {
        format!("  {:<4}  {:<width$}  {}\n", word(finding.verdict), finding.topic, finding.text)
    };
    findings.0.iter().map(line).collect()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fine => "ok",
        Verdict::Note => "note",
        Verdict::No | Verdict::Never => "NO",
    }
}

fn document(all: &All, good: bool) -> String {
    let path = all.program.as_ref().map(|(path, _)| path);
    let about = all.program.as_ref().map(|(_, findings)| list(findings)).unwrap_or_default();
    let document = json!({ "accelerated": good, "program": path, "program_findings": about, "machine_findings": list(&all.machine), "fabric_findings": list(&all.fabric) });
    format!("{document}\n")
}

fn list(findings: &Findings) -> Vec<Value> {
    let one = |finding: &Finding| json!({ "verdict": word(finding.verdict).to_lowercase(), "topic": finding.topic, "text": finding.text });
    findings.0.iter().map(one).collect()
}
