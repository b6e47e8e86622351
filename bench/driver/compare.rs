//! Runs a case over its transports alternately and takes medians.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::counters::Counters;
use crate::lab::{Lab, PairResult, Run, Transport};

/// What one run gave.
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Further figures under their names.
    pub(crate) extra: BTreeMap<String, f64>,
    pub(crate) cpu_seconds: f64,
    pub(crate) counters: Counters,
}

impl Sample {
    /// The figure called `name` of a pair of programs, the others beside it.
    pub(crate) fn of(result: PairResult, name: &str) -> Result<Self> {
        let value = result.value(name)?;
        Ok(Self { value, extra: result.values, cpu_seconds: result.cpu_seconds, counters: result.counters })
    }
}

/// Which way a figure improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// What is measured, as it appears in the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Case {
    pub(crate) measure: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// Whether the case moves bytes that a channel could carry.
    pub(crate) traffic: bool,
    /// Where the case is on a chart of curves.
    pub(crate) point: Option<Point>,
    /// Whether its ratio is on the chart of all of them.
    pub(crate) overview: bool,
    /// What is to be known about it besides its name.
    pub(crate) note: Option<&'static str>,
}

/// A place on a chart of curves.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    /// The curve; each transport has one of its own of that name.
    pub(crate) curve: &'static str,
    pub(crate) x: f64,
}

impl Case {
    pub(crate) fn new(
        measure: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
    ) -> Self {
        Self {
            measure,
            name: name.into(),
            unit,
            better,
            traffic: true,
            point: None,
            overview: true,
            note: None,
        }
    }

    /// The same for a case without bytes to carry: it cannot fail to be accelerated.
    pub(crate) fn without_traffic(mut self) -> Self {
        self.traffic = false;
        self
    }

    /// The same as a point of `curve` at `x`.
    pub(crate) fn at(mut self, curve: &'static str, x: usize) -> Self {
        self.point = Some(Point { curve, x: x as f64 });
        self
    }

    /// The same, not on the chart of all ratios: another case says the same there.
    pub(crate) fn not_in_overview(mut self) -> Self {
        self.overview = false;
        self
    }

    /// The same with a line below the table.
    pub(crate) fn with_note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }
}

/// The figures of one transport.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) median: Option<f64>,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) runs: usize,
    pub(crate) extra: BTreeMap<String, f64>,
    pub(crate) cpu_seconds: f64,
    pub(crate) counters: Counters,
    pub(crate) failure: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) transports: BTreeMap<Transport, Figures>,
    pub(crate) ratio_to_tcp: Option<f64>,
    pub(crate) ratio_to_unix: Option<f64>,
    pub(crate) ratio_to_ring: Option<f64>,
    /// Payload that went through channels, all runs together, in bytes.
    pub(crate) channel_bytes: f64,
    pub(crate) messages_per_batch: Option<f64>,
    /// False: no byte of the Convoy runs went through a channel, so its figures say nothing.
    pub(crate) accelerated: bool,
}

impl Row {
    pub(crate) fn median(&self, transport: Transport) -> Option<f64> {
        self.transports.get(&transport).and_then(|figures| figures.median)
    }
}

/// Runs `measure` for every transport in turn, `rounds` times over. A transport that fails is not tried again.
pub(crate) fn compare(
    lab: &Lab,
    case: Case,
    transports: &[Transport],
    mut measure: impl FnMut(&mut Run<'_>) -> Result<Sample>,
) -> Vec<Row> {
    compare_all(lab, vec![case], transports, |run| Ok(vec![measure(run)?]))
}

/// The same for a program whose one run gives a figure for each of several cases, in their order.
pub(crate) fn compare_all(
    lab: &Lab,
    cases: Vec<Case>,
    transports: &[Transport],
    mut measure: impl FnMut(&mut Run<'_>) -> Result<Vec<Sample>>,
) -> Vec<Row> {
    let mut samples: BTreeMap<Transport, Vec<Vec<Sample>>> = BTreeMap::new();
    let mut failures: BTreeMap<Transport, String> = BTreeMap::new();
    for _ in 0..lab.rounds {
        for &transport in transports {
            if failures.contains_key(&transport) {
                continue;
            }
            match Run::new(lab, transport).and_then(|mut run| measure(&mut run)) {
                Ok(sample) => samples.entry(transport).or_default().push(sample),
                Err(error) => {
                    failures.insert(transport, format!("{error:#}"));
                }
            }
        }
    }
    let build = |(index, case)| {
        let figures = |&transport| {
            let runs = samples.get(&transport).map_or(&[][..], Vec::as_slice);
            let own: Vec<&Sample> = runs.iter().filter_map(|run| run.get(index)).collect();
            (transport, summary(&own, failures.get(&transport).cloned()))
        };
        row(case, transports.iter().map(figures).collect())
    };
    cases.into_iter().enumerate().map(build).collect()
}

fn summary(samples: &[&Sample], failure: Option<String>) -> Figures {
    let mut values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    let mut extra: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut counters = Counters::default();
    let mut cpu = Vec::new();
    for sample in samples {
        cpu.push(sample.cpu_seconds);
        for (name, value) in &sample.extra {
            extra.entry(name.clone()).or_default().push(*value);
        }
        for (name, value) in &sample.counters.0 {
            *counters.0.entry(name.clone()).or_default() += value;
        }
    }
    // A transport that failed once has no figure: its good runs alone would flatter it.
    let median_value = median(&mut values).filter(|_| failure.is_none());
    Figures {
        median: median_value,
        least: values.first().copied().unwrap_or_default(),
        most: values.last().copied().unwrap_or_default(),
        runs: values.len(),
        extra: extra.into_iter().filter_map(|(name, mut all)| Some((name, median(&mut all)?))).collect(),
        cpu_seconds: median(&mut cpu).unwrap_or_default(),
        counters,
        failure,
    }
}

fn row(case: Case, transports: BTreeMap<Transport, Figures>) -> Row {
    let median = |transport| transports.get(&transport).and_then(|figures: &Figures| figures.median);
    let better = case.better;
    let ratio = |base: Option<f64>| match (base?, median(Transport::Convoy)?) {
        (base, convoy) if base > 0.0 && convoy > 0.0 => Some(match better {
            Better::Higher => convoy / base,
            Better::Lower => base / convoy,
        }),
        _ => None,
    };
    let [ratio_to_tcp, ratio_to_unix, ratio_to_ring] =
        [Transport::Tcp, Transport::Unix, Transport::Ring].map(|transport| ratio(median(transport)));
    let counters = transports.get(&Transport::Convoy).map(|figures| &figures.counters);
    let channel_bytes = counters.map_or(0.0, Counters::channel_bytes);
    let messages_per_batch = counters.and_then(Counters::messages_per_batch);
    let accelerated = channel_bytes > 0.0;
    Row {
        case,
        ratio_to_tcp,
        ratio_to_unix,
        ratio_to_ring,
        channel_bytes,
        messages_per_batch,
        accelerated,
        transports,
    }
}

/// Sorts, and gives the middle value.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values.get(middle - 1)? + upper) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }
}
