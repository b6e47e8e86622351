//! Every byte of every stream, in every way of waiting, and the ends of streams.

use convoy_tests::hosts::{Plan, World};

use crate::common::{Expect, acquaint, both, both_with, check, job};

const WAYS: [&str; 4] = ["blocking", "poll", "level", "edge"];

/// A scenario in several ways of waiting, one after the other.
fn in_ways(world: &World, scenario: &'static str, ways: &[&str], connections: u64, options: &str) -> String {
    let mut said = String::new();
    for (number, way) in ways.iter().enumerate() {
        let options = format!("{options} --io {way} --seed {}", number + 1);
        let job = job(scenario, connections, &options).port(7000 + number as u16);
        said.push_str(&job.run(world.host(1), world.host(0)));
    }
    said
}

/// A good part has to go through the channel; what a receiver or a slow fabric does not take in time may go through the kernel.
fn much_is_far(world: &World) {
    if world.accelerated() {
        let counters = world.counters();
        let (far, kernel) = (counters.get("bytes_sent"), counters.get("kernel_bytes_sent"));
        world.check(
            10 * far > kernel,
            &format!("{far} bytes went through channels and {kernel} through the kernel"),
        );
    }
}

fn echo(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        let said = in_ways(world, "echo", &WAYS, 4, "--bytes 700000");
        much_is_far(world);
        said
    });
}

fn small_messages(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        let mut said = in_ways(world, "pingpong", &WAYS, 8, "--bytes 60000");
        said += &in_ways(world, "pingpong", &WAYS[..1], 2, "--bytes 10000 --delay");
        much_is_far(world);
        said
    });
}

fn one_way(provider: &str) {
    both(provider, &Plan::pair(), |world| in_ways(world, "oneway", &WAYS, 3, "--bytes 1500000"));
}

fn half_close(provider: &str) {
    both(provider, &Plan::pair(), |world| in_ways(world, "halfclose", &WAYS, 3, "--bytes 700000"));
}

fn server_exits_after_its_last_write(provider: &str) {
    both(provider, &Plan::pair(), |world| {
        let mut said = in_ways(world, "exit", &WAYS, 1, "--bytes 5000");
        said += &in_ways(world, "exit", &WAYS, 4, "--bytes 400000");
        said
    });
}

fn close_with_unread_data(provider: &str) {
    both(provider, &Plan::pair(), |world| in_ways(world, "unread", &WAYS[..2], 3, "--bytes 16000"));
}

fn slow_reader_holds_up_nobody(provider: &str) {
    both(provider, &Plan::pair(), |world| in_ways(world, "slow", &WAYS[..2], 4, "--bytes 3000000"));
}

fn many_short_connections(provider: &str) {
    let count = 400;
    both_with(provider, &Plan::pair(), Expect::Far, |world| {
        world.start_agents();
        acquaint(world, 1, 0);
        let pair = job("short", count, "").start(world.host(1), world.host(0));
        pair.go();
        let said = pair.succeeds();
        // What short connections leave behind must not be in the way of the next.
        let after = job("echo", 2, "--bytes 100000").port(7001).run(world.host(1), world.host(0));
        said + &after
    });
}

crate::over_providers!(
    echo: super::echo,
    small_messages: super::small_messages,
    one_way: super::one_way,
    half_close: super::half_close,
    server_exits_after_its_last_write: super::server_exits_after_its_last_write,
    close_with_unread_data: super::close_with_unread_data,
    slow_reader_holds_up_nobody: super::slow_reader_holds_up_nobody,
    many_short_connections: super::many_short_connections,
);

#[test]
fn ipv6_addresses() {
    both(crate::common::TCP, &Plan::pair(), |world| {
        job("echo", 3, "--bytes 300000").six().run(world.host(1), world.host(0))
    });
}

/// The client's process has the lower address in one direction, the server's in the other: each agent opens streams.
#[test]
fn either_host_may_be_the_server() {
    both(crate::common::TCP, &Plan::pair(), |world| {
        let one = job("echo", 3, "--bytes 300000").run(world.host(0), world.host(1));
        let two = job("halfclose", 3, "--bytes 300000").port(7001).run(world.host(1), world.host(0));
        check_both(world);
        one + &two
    });
}

/// Large payloads are written beside the batches, from the memory of the program.
#[test]
fn large_payloads() {
    both(crate::common::TCP, &Plan::pair(), |world| {
        let said = in_ways(world, "echo", &WAYS[..2], 3, "--bytes 6000000");
        if world.accelerated() {
            for host in 0..2 {
                let large = world.host(host).link_counter("large_sent");
                world.check(large > 0, "no payload was written beside the batches");
            }
        }
        said
    });
}

/// Where there is no card, a connection whose messages cannot be gathered stays with TCP, and so does one with large
/// messages: they are taken up all the same, and nothing of them goes through the agents.
#[test]
fn what_cannot_be_gathered_stays_with_tcp() {
    both_with(crate::common::TCP, &Plan::pair(), Expect::Taken, |world| {
        for host in 0..2 {
            world.host(host).start_agent_with(&["--insecure"], &[("CONVOY_GATHER", "auto")]);
        }
        let jobs = WAYS.map(|way| ("pingpong", format!("--bytes 60000 --io {way}")));
        let jobs = jobs.into_iter().chain([("oneway", "--bytes 30000000".to_owned())]);
        let mut said = String::new();
        for (number, (scenario, options)) in (0u16..).zip(jobs) {
            let job = job(scenario, 1, &options).port(7000 + number);
            let mut pair = job.start(world.host(1), world.host(0));
            pair.connected();
            if world.accelerated() {
                let opened = || world.host(0).link_counter("streams_opened") > u64::from(number);
                world.eventually("the agents agree upon the connection", opened);
            }
            pair.go();
            said += &pair.succeeds();
        }
        said
    });
}

fn check_both(world: &World) {
    if world.accelerated() {
        check(world, Expect::Far);
    }
}
