//! Running the same exercise natively and under Convoy, and what must be true of the second.

use convoy_tests::hosts::peers::Job;
use convoy_tests::hosts::{Pair, Plan, World, until};
use convoy_tests::{Counters, Mode};

/// Agents over the kernel's TCP.
pub const TCP: &str = "tcp";
/// Agents over the kernel's UDP: another kind of endpoint, and losses are libfabric's to repair.
pub const UDP: &str = "udp;ofi_rxd";

/// A job for `host_stream`.
pub fn job(scenario: &'static str, connections: u64, options: &str) -> Job {
    Job::new(convoy_tests::program!("host_stream"), scenario, connections, options)
}

/// Whether bytes have to leave the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Connections are accelerated.
    Far,
    /// They are taken up, and their bytes stay on the kernel.
    Taken,
    /// They stay on the kernel.
    Plain,
}

/// Runs an exercise natively and under Convoy with an agent on each host; what it says must be the same.
pub fn both(provider: &str, plan: &Plan, exercise: impl Fn(&World) -> String) {
    both_with(provider, plan, Expect::Far, |world| {
        world.start_agents();
        exercise(world)
    });
}

/// The same, with the agents left to the exercise. The counters of the second run, if it could be.
pub fn both_with(
    provider: &str,
    plan: &Plan,
    expect: Expect,
    exercise: impl Fn(&World) -> String,
) -> Option<Counters> {
    let native = World::new(Mode::Native, provider, plan)?;
    let wanted = exercise(&native);
    native.finish();
    let world = World::new(Mode::Preloaded, provider, plan)?;
    let said = exercise(&world);
    world.check(said == wanted, &format!("natively:\n{wanted}\nunder Convoy:\n{said}"));
    check(&world, expect);
    Some(world.finish())
}

/// Runs an exercise only under Convoy, where there is nothing to compare.
pub fn convoy(provider: &str, plan: &Plan, exercise: impl Fn(&World)) {
    let Some(world) = World::new(Mode::Preloaded, provider, plan) else { return };
    exercise(&world);
    world.finish();
}

/// What the counters of the programs that have ended must say.
pub fn check(world: &World, expect: Expect) {
    let counters = world.counters();
    if expect == Expect::Plain {
        world.check(counters.get("streams_far") == 0, "connections went where they should not");
        world.check(counters.get("bytes_sent") == 0, "bytes went where they should not");
        return;
    }
    if expect == Expect::Taken {
        let taken = world.host(0).link_counter("streams_opened");
        world.check(taken > 0, "no connection was offered and agreed upon");
        let (far, kernel) = (counters.get("bytes_sent"), counters.get("kernel_bytes_sent"));
        return world.check(far * 20 < kernel, &format!("{far} bytes by the fabric, {kernel} by TCP"));
    }
    world.check(counters.get("streams_far") > 0, "no connection was accelerated");
    world.check(counters.get("bytes_sent") > 0, "no byte was sent through a channel");
    world.check(counters.get("bytes_received") > 0, "no byte was received through a channel");
}

/// Traffic on accelerated connections, which goes on until it is stopped. Those that were turned down because an agent
/// has just come back are ended, and others made.
pub fn load<'w>(world: &'w World, port: u16, options: &str) -> Pair<'w> {
    let options = format!("--bytes 0 --pace 300 {options}");
    let first = port;
    for port in first..first + 90 {
        let mut pair = job("echo", 6, &options).port(port).start(world.host(1), world.host(0));
        pair.connected();
        until(|| pair.are_far() || pair.turned_down());
        pair.go();
        if pair.are_far() {
            pair.goes_on(2);
            return pair;
        }
        pair.stop();
        pair.succeeds();
        // Not a wait for anything: so many attempts take longer than an agent keeps away from another.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    world.fail("connections are never accelerated again")
}

/// New connections are accelerated again: not necessarily the first, because an agent does not ask at once again after
/// one that was not there.
pub fn accelerated_again(world: &World, port: u16) {
    let mut port = port;
    world.eventually("new connections are accelerated", || {
        let mut pair = job("echo", 4, "--bytes 200000").port(port).start(world.host(1), world.host(0));
        pair.connected();
        until(|| pair.are_far() || pair.turned_down());
        let far = pair.are_far();
        pair.go();
        pair.succeeds();
        port += 1;
        if !far {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        far
    });
}

/// Ends the traffic of so many connections; streams that lost their link have returned to the kernel.
pub fn survived(world: &World, mut pair: Pair<'_>, connections: usize) {
    pair.goes_on(4);
    ended_well(world, pair, connections);
}

/// Ends the traffic of so many connections: everything that was sent has come back, and then the end.
pub fn ended_well(world: &World, pair: Pair<'_>, connections: usize) {
    pair.stop();
    let said = pair.succeeds();
    world.check(said.matches("all, then end").count() == connections, &said);
    world.check(said.matches("echoed").count() == connections, &said);
}

/// At least one stream has.
pub fn failed_over(world: &World) {
    let counters = world.counters();
    world
        .check(counters.get("failovers") > 0, "a link was lost under live streams, and none has failed over");
}

/// Lets the agents of two hosts find each other, so that short connections have a way from the beginning. What this
/// takes is not counted.
pub fn acquaint(world: &World, one: usize, two: usize) {
    if !world.accelerated() {
        return;
    }
    let mut pair = job("echo", 1, "--bytes 1000").port(6999).start(world.host(one), world.host(two));
    pair.connected();
    pair.accelerated();
    pair.go();
    pair.succeeds();
    for entry in std::fs::read_dir(world.path("stats")).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
}

/// The same tests over each provider: `over_providers!(exercise_name: function, ...)`.
#[macro_export]
macro_rules! over_providers {
    ($($name:ident: $exercise:path,)*) => {
        mod over_tcp {
            $(#[test] fn $name() { $exercise($crate::common::TCP); })*
        }
        mod over_udp {
            $(#[test] fn $name() { $exercise($crate::common::UDP); })*
        }
    };
}
