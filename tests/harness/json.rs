//! What programs print as JSON, as far as tests need it.

/// All numbers that a JSON text has under a name, in order.
#[must_use]
pub fn numbers(text: &str, name: &str) -> Vec<f64> {
    let name = format!("\"{name}\":");
    let values = text.split(&name).skip(1).map(|rest| {
        let rest = rest.trim_start();
        rest[..rest.find([',', '\n', '}']).unwrap_or(rest.len())].trim().parse().unwrap_or(f64::NAN)
    });
    values.collect()
}
