//! Finds `libconvoy.so` and the `convoy` command, and builds the library where nobody has said which one to test.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The library under test: `CONVOY_LIBRARY`, or a release build of this checkout in the same target directory.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("CONVOY_LIBRARY") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "CONVOY_LIBRARY names {}, which is no file", path.display());
            path
        }
        None => build(),
    })
}

/// The `convoy` command: `CONVOY_COMMAND`, or the one that was built together with the library.
pub fn command() -> PathBuf {
    if let Some(path) = std::env::var_os("CONVOY_COMMAND") {
        return path.into();
    }
    let beside = path().with_file_name("convoy");
    let target = target_directory();
    let places = [beside, target.join("release/convoy"), target.join("debug/convoy")];
    let found = places.iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no convoy command: cargo build --release, or set CONVOY_COMMAND")).clone()
}

/// `target` as cargo laid it out around this executable: `<target>/<profile>/deps/<test>`.
fn target_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("path of this executable");
    executable.ancestors().nth(3).expect("an executable inside a target directory").to_path_buf()
}

/// Builds once for a whole run: nextest starts a process for every test, and says which run it belongs to.
fn build() -> PathBuf {
    let target = target_directory();
    let library = target.join("release/libconvoy.so");
    let stamp = target.join("convoy-tests-built");
    let lock = File::create(target.join("convoy-tests-lock")).expect("lock file in the target directory");
    // SAFETY: flock on a descriptor that lives as long as `lock`.
    let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(locked, 0, "flock");
    let run = std::env::var("NEXTEST_RUN_ID").ok();
    let built = run.as_ref().is_some_and(|run| fs::read_to_string(&stamp).is_ok_and(|text| &text == run));
    if built && library.is_file() {
        return library;
    }
    cargo_build(&target);
    assert!(library.is_file(), "the build left no {}", library.display());
    if let Some(run) = run {
        fs::write(&stamp, run).expect("stamp in the target directory");
    }
    library
}

fn cargo_build(target: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--package", "convoy-preload", "--target-dir"])
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "libconvoy.so does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
