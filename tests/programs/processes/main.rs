//! Streams and processes: fork, exec, spawn, daemons, and what each side may still do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod execs;
mod forks;
mod limits;
mod places;
mod strangers;

use convoy_tests::kit::{Link, main as run};
use convoy_tests::say;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "go-on") {
        return execs::go_on(&words[2..]);
    }
    run(&[
        ("child_serves", forks::child_serves),
        ("children_serve_in_turn", forks::children_serve_in_turn),
        ("prefork", forks::prefork),
        ("fork_before_connect", forks::fork_before_connect),
        ("alternate", forks::alternate),
        ("child_writes_parent_reads", forks::child_writes_parent_reads),
        ("child_outlives_parent", forks::child_outlives_parent),
        ("child_only_exits", forks::child_only_exits),
        ("child_is_killed", forks::child_is_killed),
        ("child_closes_its_copy", forks::child_closes_its_copy),
        ("parent_closes_its_copy", forks::parent_closes_its_copy),
        ("child_shuts", forks::child_shuts),
        ("fork_with_unread_bytes", forks::fork_with_unread_bytes),
        ("fork_under_pressure", forks::fork_under_pressure),
        ("fork_among_threads", forks::fork_among_threads),
        ("many_children_serve", forks::many_children_serve),
        ("many_forks", forks::many_forks),
        ("grandchildren", forks::grandchildren),
        ("daemon", forks::daemon),
        ("other_user", forks::other_user),
        ("other_mounts", places::other_mounts),
        ("other_descriptors_and_files", places::other_descriptors_and_files),
        ("other_network", places::other_network),
        ("other_process_numbers", places::other_process_numbers),
        ("everything_closed", places::everything_closed),
        ("confined_by_prctl", limits::confined_by_prctl),
        ("confined_by_seccomp", limits::confined_by_seccomp),
        ("confined_from_the_start", limits::confined_from_the_start),
        ("confined_child_closes", limits::confined_child_closes),
        ("new_root", limits::new_root),
        ("no_room_for_files", limits::no_room_for_files),
        ("connected_by_a_parent", strangers::connected_by_a_parent),
        ("short_lived_peers", strangers::short_lived_peers),
        ("exec_itself", |case| execs::exec_itself(case, true)),
        ("exec_itself_plain", |case| execs::exec_itself(case, false)),
        ("exec_without_fork", execs::exec_without_fork),
        ("exec_failed", execs::exec_failed),
        ("exec_cat", |case| execs::exec_cat(case, true)),
        ("exec_cat_plain", |case| execs::exec_cat(case, false)),
        ("spawned_cat", execs::spawned_cat),
        ("system_and_popen", execs::system_and_popen),
        ("close_on_exec", execs::close_on_exec),
    ]);
}

/// Both ends do a few exchanges, to see that all is well.
pub(crate) fn check(link: &mut Link, what: &str) {
    link.start("pong 5 100");
    link.ping(5, 100);
    say!("{what}: {}", link.finish());
}

/// What a child has done with a copy of the stream has happened to ours too.
pub(crate) fn catch_up(link: &mut Link, out: usize, inn: usize) {
    link.stream.out.advance(out);
    link.stream.inn.advance(inn);
}
