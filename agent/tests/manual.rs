//! The manual page says what the command does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use convoy_runtime::config::VARIABLES;

#[test]
fn the_manual_names_every_setting_with_its_default() {
    let page = include_str!("../../docs/convoy.1").replace("\\-", "-").replace("\\(aq", "'");
    for variable in VARIABLES {
        let start = page.find(&format!(".TP\n.B {}\n", variable.name)).expect(variable.name);
        let entry = page[start + 3..].split(".TP").next().unwrap();
        assert!(entry.contains(&format!("Default: {}.", variable.default)), "{entry}");
        assert!(entry.contains(variable.allowed), "{entry}");
    }
}
