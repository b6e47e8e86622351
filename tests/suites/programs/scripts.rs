//! Where the scripts of `programs/` are, and what runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use convoy_tests::arena::find;

/// The path of a script below `programs/`.
pub fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name).display().to_string()
}

/// Python as Debian has it.
pub fn python() -> PathBuf {
    find("python3", "python3")
}

/// The same, with modules from other packages; fails with a line that says what to install.
pub fn python_with(modules: &[(&str, &str)]) -> PathBuf {
    let python = python();
    for (module, package) in modules {
        let mut command = Command::new(&python);
        command.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
        let found = command.status().is_ok_and(|status| status.success());
        assert!(found, "Python has no {module}: ./dev test installs it, or apt-get install {package}");
    }
    python
}
