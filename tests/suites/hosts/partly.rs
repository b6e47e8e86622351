//! One half is missing: a host without an agent, a program without the library, an agent that must not be trusted, a
//! policy that says no. Everything works, over the kernel.

use convoy_tests::hosts::{Host, Plan, World};

use crate::common::{Expect, TCP, both_with, check, convoy, job};

/// A pair that has nothing to wait for, and whose connections stay where they are.
fn plain_pair(world: &World, port: u16, preloaded: [bool; 2]) -> String {
    let job = job("echo", 3, "--bytes 300000").port(port);
    let pair = job.start_as(world.host(1), world.host(0), preloaded);
    pair.go();
    pair.succeeds()
}

fn plainly(start: impl Fn(&World)) {
    both_with(TCP, &Plan::pair(), Expect::Plain, |world| {
        start(world);
        let said = plain_pair(world, 7000, [true, true]);
        world.check_agents();
        said
    });
}

#[test]
fn no_agent_anywhere() {
    plainly(|_| {});
}

#[test]
fn an_agent_at_the_client_only() {
    plainly(|world| world.host(0).start_agent(&["--insecure"]));
}

#[test]
fn an_agent_at_the_server_only() {
    plainly(|world| world.host(1).start_agent(&["--insecure"]));
}

/// The other end never appears under Convoy.
#[test]
fn the_library_at_one_end_only() {
    both_with(TCP, &Plan::pair(), Expect::Plain, |world| {
        world.start_agents();
        let one = plain_pair(world, 7000, [true, false]);
        let two = plain_pair(world, 7001, [false, true]);
        world.check_agents();
        one + &two
    });
}

/// A connection that waits for its other end in vain is still there when that is clear.
#[test]
fn an_offer_that_nobody_answers_is_forgotten() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let job = job("echo", 2, "--bytes 0 --pace 2000");
        let mut pair = job.start_as(world.host(1), world.host(0), [true, false]);
        pair.go();
        pair.goes_on(1);
        world.eventually("giving up", || pair.server.live().get("bypasses_unmatched") == 2);
        pair.goes_on(1);
        pair.stop();
        pair.succeeds();
        check(world, Expect::Plain);
    });
}

/// A client under Convoy whose agent starts only in the middle: later connections find it.
#[test]
fn agents_that_come_later() {
    convoy(TCP, &Plan::pair(), |world| {
        plain_pair(world, 7000, [true, true]);
        check(world, Expect::Plain);
        let mut early =
            job("echo", 2, "--bytes 0 --pace 1000").port(7001).start(world.host(1), world.host(0));
        early.go();
        early.goes_on(1);
        world.start_agents();
        job("echo", 3, "--bytes 300000").port(7002).run(world.host(1), world.host(0));
        early.goes_on(2);
        early.stop();
        early.succeeds();
        check(world, Expect::Far);
    });
}

/// Makes a key file.
fn new_key(world: &World, name: &str) -> String {
    let path = world.path(name).display().to_string();
    let host = world.host(0);
    host.run(host.plain(world.path("convoy"), &["agent", "--new-key", &path]));
    path
}

fn with_key(host: Host<'_>, key: &str) {
    host.start_agent_with(&["--key", key], &[("CONVOY_LOG", "debug")]);
}

fn refused(world: &World) {
    let refused = || {
        let logs = [world.host(0).agent_log(), world.host(1).agent_log()].concat();
        logs.contains("connection refused") || logs.contains("dial failed")
    };
    world.eventually("a line about the refusal", refused);
    world.check(world.links_up() == [0, 0], "a link between agents that must not trust each other");
}

#[test]
fn agents_with_one_key() {
    convoy(TCP, &Plan::pair(), |world| {
        let key = new_key(world, "key");
        (0..2).for_each(|host| with_key(world.host(host), &key));
        job("echo", 3, "--bytes 300000").run(world.host(1), world.host(0));
        check(world, Expect::Far);
    });
}

#[test]
fn agents_with_different_keys() {
    convoy(TCP, &Plan::pair(), |world| {
        (0..2).for_each(|host| with_key(world.host(host), &new_key(world, &format!("key-{host}"))));
        plain_pair(world, 7000, [true, true]);
        refused(world);
        check(world, Expect::Plain);
        world.check_agents();
    });
}

#[test]
fn an_agent_with_a_key_and_one_without() {
    convoy(TCP, &Plan::pair(), |world| {
        with_key(world.host(0), &new_key(world, "key"));
        world.host(1).start_agent_with(&["--insecure"], &[("CONVOY_LOG", "debug")]);
        plain_pair(world, 7000, [true, true]);
        refused(world);
        check(world, Expect::Plain);
        world.check_agents();
    });
}

/// The agent of one host allows everything but one port.
#[test]
fn a_policy_denies_a_port() {
    convoy(TCP, &Plan::pair(), |world| {
        let rule = |side| format!("[[rule]]\nallow = false\n{side}_ports = [7000]\n");
        let policy = world.file("policy.toml", rule("local") + &rule("remote")).display().to_string();
        world.host(0).start_agent(&["--insecure"]);
        world.host(1).start_agent(&["--insecure", "--policy", &policy]);
        plain_pair(world, 7000, [true, true]);
        check(world, Expect::Plain);
        let counters = world.counters();
        world.check(
            counters.get("bypasses_policy") == 3,
            "connections that the policy denies are counted as such",
        );
        job("echo", 3, "--bytes 300000").port(7001).run(world.host(1), world.host(0));
        check(world, Expect::Far);
        // It is read again when it has changed.
        world.file("policy.toml", "");
        world.host(1).signal_agent(libc::SIGHUP);
        world.host(1).agent_says("policy read again");
        job("echo", 3, "--bytes 300000").port(7000).run(world.host(1), world.host(0));
    });
}

/// A policy file that makes no sense does not take the place of one that does.
#[test]
fn a_policy_that_cannot_be_read_changes_nothing() {
    convoy(TCP, &Plan::pair(), |world| {
        let policy = world.file("policy.toml", "").display().to_string();
        world.host(0).start_agent(&["--insecure"]);
        world.host(1).start_agent(&["--insecure", "--policy", &policy]);
        world.file("policy.toml", "[[rule]]\nallow = maybe\n");
        world.host(1).signal_agent(libc::SIGHUP);
        world.host(1).agent_says("the old policy stays");
        job("echo", 3, "--bytes 300000").run(world.host(1), world.host(0));
        check(world, Expect::Far);
    });
}
