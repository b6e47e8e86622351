//! What the tests of the command share.
#![allow(dead_code, unreachable_pub)]

pub mod agents;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command under test, without settings of whoever runs the tests.
pub fn convoy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONVOY")) {
        command.env_remove(name);
    }
    command.env_remove("LD_PRELOAD");
    command
}

/// A library that any program can load without effect: it stands in for libconvoy.so.
pub fn library() -> &'static Path {
    let places = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    let found = places.iter().find(|path| Path::new(path).is_file()).expect("libm.so.6");
    let path = fs::canonicalize(found).unwrap();
    Box::leak(path.into_boxed_path())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of one test (mode 0700), removed afterwards.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("convoy-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn owner(&self) -> u32 {
        fs::metadata(&self.0).unwrap().uid()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compiles a C program.
pub fn compile(source: &str, into: &Path, flags: &[&str]) {
    compile_by("cc", source, into, flags);
}

/// The same with another compiler, or a line that says what to install.
pub fn compile_by(compiler: &str, source: &str, into: &Path, flags: &[&str]) {
    let file = into.with_extension("c");
    fs::write(&file, source).unwrap();
    let output = Command::new(compiler).arg("-o").arg(into).arg(&file).args(flags).output();
    let output = output.unwrap_or_else(|_| {
        panic!("no {compiler}: ./dev test installs it, or apt-get install gcc musl-tools")
    });
    assert!(output.status.success(), "{}", text(&output.stderr));
}
