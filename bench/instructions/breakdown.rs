//! Where the instructions of one call go: by stage, by function, by line.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::frames::Frames;
use crate::profile::{Call, Place};
use crate::stages;

/// Lines of source and functions that are shown at most.
const MOST: usize = 40;

/// Prints all tables.
pub(crate) fn print(call: &Call, frames: &Frames) {
    let sums = Sums::of(call, frames);
    println!("{}: {} instructions\n\nself     stage", call.path, call.total());
    for (stage, own) in sorted(&sums.stages) {
        println!("{own:>7}  {stage}");
    }
    println!(
        "\nself     with what it calls  function (inlined code counts for the function it was written in)"
    );
    for (function, own) in sorted(&sums.own).into_iter().take(MOST) {
        println!("{own:>7}  {:>7}  {function}", sums.inclusive.get(function).copied().unwrap_or(own));
    }
    println!("\nwith what it calls  function");
    for (function, inclusive) in sorted(&sums.inclusive).into_iter().take(MOST) {
        println!("{inclusive:>7}  {function}");
    }
    println!("\nself     line");
    for (line, own) in sorted(&sums.lines).into_iter().take(MOST) {
        println!("{own:>7}  {line}");
    }
}

/// Instructions by what they belong to.
#[derive(Default)]
struct Sums {
    stages: BTreeMap<&'static str, u64>,
    own: BTreeMap<String, u64>,
    inclusive: BTreeMap<String, u64>,
    lines: BTreeMap<String, u64>,
}

impl Sums {
    fn of(call: &Call, frames: &Frames) -> Self {
        let mut sums = Self::default();
        for cost in &call.costs {
            let functions = functions(&cost.place, frames);
            for function in functions.iter().collect::<BTreeSet<_>>() {
                *sums.inclusive.entry(function.clone()).or_default() += cost.instructions;
            }
            if cost.called {
                continue;
            }
            let Some(function) = functions.into_iter().next() else { continue };
            *sums.stages.entry(stage(&cost.place, frames)).or_default() += cost.instructions;
            *sums.lines.entry(line(&cost.place, frames, &function)).or_default() += cost.instructions;
            *sums.own.entry(function).or_default() += cost.instructions;
        }
        sums
    }
}

/// The largest sums first.
fn sorted<K>(sums: &BTreeMap<K, u64>) -> Vec<(&K, u64)> {
    let mut sums: Vec<_> = sums.iter().map(|(key, sum)| (key, *sum)).collect();
    sums.sort_by_key(|(_, sum)| Reverse(*sum));
    sums
}

/// The functions a place is in, innermost first, with their files.
fn functions(place: &Place, frames: &Frames) -> Vec<String> {
    match place {
        Place::Elsewhere(symbol) => vec![format!("{symbol} (not Convoy)")],
        Place::Library(_) => match frames.at(place) {
            [] => vec![String::from("unknown, or of another crate")],
            frames => frames.iter().map(|frame| format!("{} in {}", frame.function, frame.file)).collect(),
        },
    }
}

fn line(place: &Place, frames: &Frames, function: &str) -> String {
    match frames.at(place) {
        [frame, ..] if frame.line > 0 => format!("{}:{} {}", frame.file, frame.line, frame.function),
        _ => format!("{function}, line unknown"),
    }
}

fn stage(place: &Place, frames: &Frames) -> &'static str {
    match place {
        Place::Elsewhere(symbol) => stages::of_symbol(symbol),
        Place::Library(_) => stages::of_frames(frames.at(place)),
    }
}
