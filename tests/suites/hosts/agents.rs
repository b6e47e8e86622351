//! Agents that start, end and start again while nobody is hurt; how they begin and what they leave.

use convoy_tests::hosts::{Plan, until};

use crate::common::{Expect, TCP, check, convoy, job};

#[test]
fn a_second_agent_of_a_host_is_refused() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let host = world.host(0);
        let mut second = host.plain(world.path("convoy"), &["agent", "--insecure", "--port", "4793"]);
        second.env("CONVOY_DIR", world.directory()).env("CONVOY_FABRIC", TCP);
        let ended = host.try_run(second);
        world.check(ended.status.code() == Some(1), "a second agent");
        world.check(ended.stderr.contains("another agent listens"), &ended.stderr);
        job("echo", 2, "--bytes 100000").run(world.host(1), world.host(0));
    });
}

/// After a crash there is an old socket in the way.
#[test]
fn an_agent_starts_again_after_a_crash() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        for round in 0..3 {
            let host = world.host(round % 2);
            host.kill_agent();
            host.start_agent(&["--insecure"]);
            let job = job("echo", 2, "--bytes 100000").port(7000 + round as u16);
            job.run(world.host(1), world.host(0));
        }
        check(world, Expect::Far);
    });
}

/// An agent that ends leaves neither socket nor link.
#[test]
fn an_agent_leaves_nothing_behind() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        job("echo", 2, "--bytes 100000").run(world.host(1), world.host(0));
        let socket = world.host(0).agent_socket();
        world.check(socket.exists(), "the agent's socket");
        world.host(0).end_agent();
        world.check(!socket.exists(), "the agent's socket is still there");
        world.host(1).agent_says("agent gone");
        world.host(1).agent_lives();
    });
}

/// Agents that are told of each other are linked before anybody needs it.
#[test]
fn agents_told_of_each_other_are_linked_at_once() {
    convoy(TCP, &Plan::pair(), |world| {
        let others = [world.host(1).ip(), world.host(0).ip()];
        for (host, other) in others.iter().enumerate() {
            world.host(host).start_agent(&["--insecure", "--peer", other]);
        }
        (0..2).for_each(|host| world.host(host).agent_says("link is up"));
        job("echo", 2, "--bytes 100000").run(world.host(1), world.host(0));
        world.check(world.links_up() == [1, 1], &format!("links of each host: {:?}", world.links_up()));
    });
}

/// What an idle agent uses must not grow with what it has done.
#[test]
fn an_agent_keeps_no_descriptors_of_programs_that_have_ended() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let open = || {
            let count = |host: usize| {
                let place = format!("/proc/{}/fd", world.host(host).agent_pid());
                std::fs::read_dir(place).unwrap().count()
            };
            (count(0), count(1))
        };
        let run = |port| job("echo", 4, "--bytes 50000").port(port).run(world.host(1), world.host(0));
        run(7000);
        let settled = std::cell::Cell::new((0, 0));
        until(|| {
            let now = open();
            settled.replace(now) == now
        });
        let before = settled.get();
        (7001..7006).for_each(|port| drop(run(port)));
        world.eventually(&format!("descriptors as before ({before:?})"), || {
            let now = open();
            now.0 <= before.0 + 1 && now.1 <= before.1 + 1
        });
    });
}
