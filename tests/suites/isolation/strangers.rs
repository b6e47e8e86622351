//! Another user of the same host, beside two programs with traffic between them.

use std::time::Duration;

use convoy_tests::library;

use crate::common::{STRANGER, VICTIM, Victims, arena, as_user, copied, look, plain};

/// Registry, counters, bells, segments, descriptors, memory: nothing can be opened, and no length be seen.
#[test]
fn nothing_of_it_can_be_opened() {
    let Some(arena) = arena() else { return };
    let victims = Victims::start(&arena, VICTIM);
    assert_eq!(look(&arena, STRANGER, &victims.pids()), Vec::<String>::new());
    // They themselves get all of it.
    let own = look(&arena, VICTIM, &victims.pids());
    for what in [
        "registry",
        "stats",
        "bell",
        "fd/",
        "mem",
        "ptrace",
        "process_vm_readv",
        "pidfd_getfd",
        "a place for files",
    ] {
        assert!(
            own.iter().any(|line| line.contains(what)),
            "{what} is not found by those whose it is\n{own:#?}"
        );
    }
    victims.end();
    arena.finish(true);
}

/// The tools show a user its own programs.
#[test]
fn the_tools_show_nothing_of_others() {
    let Some(arena) = arena() else { return };
    let victims = Victims::start(&arena, VICTIM);
    let convoy = copied(library::command(), arena.path("convoy"));
    let run = |user: u32, words: &[&str]| {
        arena.try_run(as_user(plain(&arena, &convoy, words), user), Duration::from_secs(60))
    };
    let pid = victims.pids()[0].to_string();
    let list = run(STRANGER, &["stat", "--json"]);
    assert!(list.status.success() && !list.stdout.contains("\"pid\""), "{list:?}");
    for words in [&["stat", &pid][..], &["dump", &pid], &["trace", &pid, "--seconds", "0.2"]] {
        let (other, own) = (run(STRANGER, words), run(VICTIM, words));
        assert_eq!(other.status.code(), Some(1), "{words:?}: {other:?}");
        assert!(!other.stdout.contains("bytes"), "{words:?}: {other:?}");
        assert!(own.status.success(), "{words:?}: {own:?}");
    }
    victims.end();
    arena.finish(true);
}
