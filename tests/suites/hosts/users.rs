//! Programs of different users on one host: joined by the agent, if its policy lets them.

use convoy_tests::hosts::{Plan, World, until};

use crate::common::{Expect, TCP, check, convoy, failed_over, job, survived};

/// nobody, who has no files of its own.
const OTHER: u32 = 65534;

fn start_agent(world: &World, join_users: bool) {
    let policy = world.file("policy.toml", format!("[defaults]\njoin_users = {join_users}\n"));
    world.host(0).start_agent(&["--insecure", "--policy", policy.to_str().unwrap()]);
}

#[test]
fn different_users_are_joined_if_the_policy_says_so() {
    convoy(TCP, &Plan::pair(), |world| {
        start_agent(world, true);
        for (number, (scenario, options)) in [
            ("echo", "--bytes 700000 --io blocking"),
            ("echo", "--bytes 700000 --io level"),
            ("oneway", "--bytes 1500000 --io poll"),
            ("halfclose", "--bytes 700000 --io edge"),
            ("exit", "--bytes 400000"),
        ]
        .into_iter()
        .enumerate()
        {
            let job = job(scenario, 3, options).port(7000 + number as u16).server_user(OTHER);
            job.run(world.host(0), world.host(0));
        }
        check(world, Expect::Far);
    });
}

#[test]
fn the_agent_between_users_crashes() {
    convoy(TCP, &Plan::pair(), |world| {
        start_agent(world, true);
        let job = job("echo", 4, "--bytes 0 --pace 300 --io level").server_user(OTHER);
        let mut pair = job.start(world.host(0), world.host(0));
        pair.connected();
        pair.accelerated();
        pair.go();
        pair.goes_on(2);
        world.host(0).kill_agent();
        survived(world, pair, 4);
        failed_over(world);
    });
}

#[test]
fn different_users_are_not_joined_by_themselves() {
    convoy(TCP, &Plan::pair(), |world| {
        start_agent(world, false);
        let job = job("echo", 3, "--bytes 300000").server_user(OTHER);
        let mut pair = job.start(world.host(0), world.host(0));
        pair.connected();
        until(|| pair.turned_down());
        pair.go();
        pair.succeeds();
        check(world, Expect::Plain);
        world.check(world.counters().get("bypasses_policy") > 0, "the policy is counted as the reason");
    });
}
