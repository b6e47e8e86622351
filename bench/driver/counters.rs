//! The counters that preloaded processes leave behind at exit, one `PID.json` each.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// Sums over all processes of one run, by name; nested objects give `outer.inner`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Counters(pub(crate) BTreeMap<String, f64>);

impl Counters {
    /// Reads every dump in `directory` and removes it; what cannot be read counts as absent.
    pub(crate) fn take(directory: &Path) -> Self {
        let mut sums = Self::default();
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if let Ok(value) = serde_json::from_str(&text) {
                sums.add("", &value);
            }
            // The directory goes with the run in any case.
            let _ = std::fs::remove_file(entry.path());
        }
        sums
    }

    fn add(&mut self, prefix: &str, value: &Value) {
        match value {
            Value::Number(number) => {
                *self.0.entry(prefix.to_owned()).or_default() += number.as_f64().unwrap_or(0.0)
            }
            Value::Object(fields) => {
                for (name, inner) in fields.iter().filter(|(name, _)| *name != "pid") {
                    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    self.add(&path, inner);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Payload that left through channels instead of the kernel, in bytes.
    pub(crate) fn channel_bytes(&self) -> f64 {
        self.get("bytes_sent")
    }

    /// Connections that left the kernel; both ends have counted each.
    pub(crate) fn accelerated_connections(&self) -> f64 {
        self.get("streams_opened") / 2.0
    }

    /// Frames that a receiver found together at one look, on average.
    pub(crate) fn messages_per_batch(&self) -> Option<f64> {
        let batches = self.get("batches_received");
        (batches > 0.0).then(|| self.get("frames_received") / batches)
    }
}
