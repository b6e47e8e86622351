//! Programs with rights that whoever starts them does not have: Convoy takes no part, and obeys no setting.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{STRANGER, arena, as_user, copied};

/// Runs a program with the library as the loader's for all programs (/etc/ld.so.preload, in a mount namespace), setuid root or not.
/// Whether it has obeyed CONVOY_STATS and CONVOY_LOG, and made a directory.
fn obeys(setuid: bool) -> Option<[bool; 3]> {
    let arena = arena()?;
    let program = copied(convoy_tests::program!("calls"), arena.path("calls"));
    fs::set_permissions(&program, fs::Permissions::from_mode(if setuid { 0o4755 } else { 0o755 })).unwrap();
    fs::create_dir(arena.path("etc")).unwrap();
    for name in ["ld.so.cache", "passwd", "group"] {
        copied(format!("/etc/{name}"), arena.path("etc").join(name));
    }
    let library = arena.path("libconvoy.so").display().to_string();
    fs::write(arena.path("etc/ld.so.preload"), library).unwrap();
    let script = format!(
        "mount --bind {} /etc && exec setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups \
         env CONVOY_LOG=debug:{} CONVOY_SPIN_US=nonsense {} calls_mixed thread-client-warm",
        arena.path("etc").display(),
        arena.path("log").display(),
        program.display()
    );
    let mut command = arena.command("unshare", &["-m", "sh", "-c", &script]);
    command.env_remove("LD_PRELOAD");
    let output = arena.run(command);
    assert_eq!(setuid, !output.stderr.contains("CONVOY_SPIN_US='nonsense'"), "{output:?}");
    let named = |name: &str, below: &std::path::Path| {
        let entries = fs::read_dir(below).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name)).count() > 0
    };
    let about = |place: std::path::PathBuf| fs::read_to_string(place).unwrap_or_default();
    let counted = fs::read_dir(arena.path("stats"))
        .unwrap()
        .flatten()
        .any(|entry| about(entry.path()).contains("calls"));
    let found = [counted, arena.path("log").exists(), named("convoy-", arena.directory())];
    arena.finish(!setuid);
    Some(found)
}

#[test]
fn a_setuid_program_is_left_alone() {
    let Some(found) = obeys(true) else { return };
    assert_eq!(found, [false; 3], "counters, log, directory of a setuid program");
    assert!(obeys(false).unwrap()[0], "the same without setuid");
}

/// The loader itself ignores LD_PRELOAD with a path then.
#[test]
fn a_setuid_program_does_not_load_the_library() {
    let Some(arena) = arena() else { return };
    let program = copied(convoy_tests::program!("calls"), arena.path("calls"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    arena.run(as_user(arena.command(&program, &["calls_mixed", "thread-client-warm"]), STRANGER));
    assert_eq!(fs::read_dir(arena.directory()).unwrap().count(), 0, "something was made");
    arena.finish(false);
}
