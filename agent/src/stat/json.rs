//! Counters for programs.

use super::{Shown, open};
use serde_json::{Map, Value, json};

/// One line: `{"processes": [{"pid": ..., "program": ..., COUNTER: ..., ...}]}`, and `"agent"` with what the agent says,
/// if there is one. Counters are always totals.
pub(super) fn document(shown: &[Shown], agent: Option<&Value>) -> String {
    let processes: Vec<Value> = shown.iter().map(process).collect();
    let mut document = json!({ "processes": processes });
    if let Some(agent) = agent {
        document["agent"] = agent.clone();
    }
    format!("{document}\n")
}

fn process(one: &Shown) -> Value {
    let page = &one.snapshot;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("pid", json!(page.pid));
    put("program", json!(page.program));
    put("start_time", json!(page.start_time));
    put("streams_open", json!(open(page)));
    for (name, value) in page.counters() {
        put(name, json!(value));
    }
    let batches = page.get("batches_received");
    let ratio = if batches == 0 { 0.0 } else { page.get("frames_received") as f64 / batches as f64 };
    put("messages_per_batch", json!((ratio * 100.0).round() / 100.0));
    put("bypasses", json!(page.sum("bypasses_")));
    put("demotions", json!(page.sum("demotions_")));
    Value::Object(object)
}
